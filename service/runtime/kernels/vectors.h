/* Numbers side by side, and functions of them.
 *
 * Knows: what the processor that this is compiled for can do. Does not know: models.
 *
 * Sums run in an order that depends on nothing but the length, so that no row's result depends on other rows.
 */
#ifndef DRAGOMAN_VECTORS_H
#define DRAGOMAN_VECTORS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))
#if defined(__AVX512F__)
#define LANES 16
#else
#define LANES 8
#endif

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));

INLINE Floats load(const float *from) {
    Floats result;
    memcpy(&result, from, sizeof result);
    return result;
}

INLINE void store(float *to, Floats values) { memcpy(to, &values, sizeof values); }

INLINE Floats load_bytes(const int8_t *from) {
#if defined(__AVX512F__)
    return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)from)));
#else
    return (Floats)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)from)));
#endif
}

INLINE Floats load_kind(const void *from, size_t at, int is_bytes) {
    return is_bytes ? load_bytes((const int8_t *)from + at) : load((const float *)from + at);
}

INLINE Floats all(float value) { return value - (Floats){0}; }

/* The larger of each two; b where one is not a number. */
INLINE Floats larger(Floats a, Floats b) {
#if defined(__AVX512F__)
    return (Floats)_mm512_max_ps((__m512)a, (__m512)b);
#else
    return (Floats)_mm256_max_ps((__m256)a, (__m256)b);
#endif
}

INLINE float sum_lanes(Floats v) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)v);
#else
    float sum = 0;
    for (int i = 0; i < LANES / 2; i++) sum += v[i] + v[i + LANES / 2];
    return sum;
#endif
}

INLINE float largest_lane(Floats v) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)v);
#else
    float most = v[0];
    for (int i = 1; i < LANES; i++) most = v[i] > most ? v[i] : most;
    return most;
#endif
}

/* The sum of each of LANES vectors, in the lane of its number. */
INLINE Floats sums_of(const Floats *v) {
#if defined(__AVX512F__)
    __m512 pairs[8], fours[4];
    for (int i = 0; i < 8; i++) {
        __m512 a = (__m512)v[2 * i], b = (__m512)v[2 * i + 1];
        pairs[i] = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    }
    for (int i = 0; i < 4; i++) {
        __m512d a = (__m512d)pairs[2 * i], b = (__m512d)pairs[2 * i + 1];
        fours[i] = _mm512_add_ps((__m512)_mm512_unpacklo_pd(a, b), (__m512)_mm512_unpackhi_pd(a, b));
    }
    __m512 low = _mm512_add_ps(_mm512_shuffle_f32x4(fours[0], fours[1], 0x88),
                               _mm512_shuffle_f32x4(fours[0], fours[1], 0xdd));
    __m512 high = _mm512_add_ps(_mm512_shuffle_f32x4(fours[2], fours[3], 0x88),
                                _mm512_shuffle_f32x4(fours[2], fours[3], 0xdd));
    return (Floats)_mm512_add_ps(_mm512_shuffle_f32x4(low, high, 0x88), _mm512_shuffle_f32x4(low, high, 0xdd));
#else
    __m256 pairs[4];
    for (int i = 0; i < 4; i++) pairs[i] = _mm256_hadd_ps((__m256)v[2 * i], (__m256)v[2 * i + 1]);
    __m256 low = _mm256_hadd_ps(pairs[0], pairs[1]), high = _mm256_hadd_ps(pairs[2], pairs[3]);
    return (Floats)_mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31));
#endif
}

/* e to the power of x, for x <= 0: 2^whole times 2^rest, the latter a polynomial that was fitted for a relative error
 * of 1e-7 on [-1/2, 1/2]. Below 2^-126 it is next to nothing; what is not a number stays that. */
INLINE Floats exp_of(Floats x) {
    Floats power = larger(all(-126.0f), x * 1.44269504f);
#if defined(__AVX512F__)
    Floats whole = (Floats)_mm512_roundscale_ps((__m512)power, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
    Floats whole = (Floats)_mm256_round_ps((__m256)power, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#endif
    Floats rest = power - whole;
    Floats result = all(1.32647267e-03f);
    result = result * rest + 9.67151268e-03f;
    result = result * rest + 5.55073374e-02f;
    result = result * rest + 2.40222421e-01f;
    result = result * rest + 6.93146978e-01f;
    result = result * rest + 1.0f;
#if defined(__AVX512F__)
    return (Floats)_mm512_scalef_ps((__m512)result, (__m512)whole);
#else
    return result * (Floats)((__builtin_convertvector(whole, Ints) + 127) << 23);
#endif
}
#endif
