/* A tile of columns times some rows, where the processor has no instruction for it.
 *
 * That of AVX2 multiplies bytes and adds two products in 16 bits, where 255 * 127 twice does not fit. So of each input
 * what lies within a window of NEAR + 1 numbers is multiplied, two and mostly four products added before they are
 * widened; and for the few that lie outside of it what is missing then, at most 127 each way: its size times columns
 * that take its sign. Rows that are mostly zero, as they are after a ReLU, are listed instead.
 */
#ifndef DRAGOMAN_PRODUCTS_AVX2_H
#define DRAGOMAN_PRODUCTS_AVX2_H

#include "packed_weights.h"

#define ROWS 4 /* that read a tile at once */

/* The places of the bits of a byte that are set, lowest first, a byte each. There is an instruction for it, which is
 * slow on some processors. */
#define IF_SET(bits, bit)                                                                                              \
    ((uint64_t)((bits) >> (bit) & 1) * (bit) << 8 * __builtin_popcount((bits) & ((1u << (bit)) - 1)))
#define SET_1(b)                                                                                                       \
    IF_SET(b, 1) | IF_SET(b, 2) | IF_SET(b, 3) | IF_SET(b, 4) | IF_SET(b, 5) | IF_SET(b, 6) | IF_SET(b, 7)
#define SET_4(b) SET_1(b), SET_1((b) + 1), SET_1((b) + 2), SET_1((b) + 3)
#define SET_16(b) SET_4(b), SET_4((b) + 4), SET_4((b) + 8), SET_4((b) + 12)
#define SET_64(b) SET_16(b), SET_16((b) + 16), SET_16((b) + 32), SET_16((b) + 48)
static const uint64_t places_set[256] = {SET_64(0u), SET_64(64u), SET_64(128u), SET_64(192u)};

/* Lists those of eight groups, the first of which is `first`, that are not zero; returns their number. */
INLINE size_t list_groups(__m256i bytes, size_t first, Listed *to) {
    __m256i nothing = _mm256_cmpeq_epi32(bytes, _mm256_setzero_si256());
    unsigned some = 0xff ^ (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(nothing));
    __m256i order = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)&places_set[some]));
    __m256i groups = _mm256_add_epi32(order, _mm256_set1_epi32((int)first));
    __m256i chosen = _mm256_permutevar8x32_epi32(bytes, order);
    __m256i left = _mm256_unpacklo_epi32(groups, chosen), right = _mm256_unpackhi_epi32(groups, chosen);
    _mm256_storeu_si256((__m256i *)to, _mm256_permute2x128_si256(left, right, 0x20));
    _mm256_storeu_si256((__m256i *)(to + 4), _mm256_permute2x128_si256(left, right, 0x31));
    return (size_t)__builtin_popcount(some);
}

INLINE __m256i read_bytes(const uint8_t *from, size_t rest, int otherwise) {
    if (rest >= 32) return _mm256_loadu_si256((const __m256i *)from);
    __m256i bytes = _mm256_set1_epi8((char)otherwise);
    memcpy(&bytes, from, rest);
    return bytes;
}

/* What is near of x (depth,), and the groups that are far. */
static void split(const uint8_t *x, size_t depth, int start, InputRow *to) {
    const __m256i starts = _mm256_set1_epi8((char)start), window = _mm256_set1_epi8((char)NEAR);
    size_t num_zero = 0;
    to->num_far = to->num_some = 0;
    for (size_t k = 0; k < depth; k += 32) {
        __m256i bytes = read_bytes(x + k, depth - k, start);
        __m256i near = _mm256_min_epu8(_mm256_subs_epu8(bytes, starts), window);
        __m256i far = _mm256_sub_epi8(_mm256_sub_epi8(bytes, starts), near);
        if (depth - k >= 32) _mm256_storeu_si256((__m256i *)(to->near + k), near);
        else memcpy(to->near + k, &near, depth - k);
        if (!_mm256_testz_si256(far, far)) to->num_far += list_groups(far, k / GROUP, to->far + to->num_far);
        __m256i zeros = _mm256_cmpeq_epi32(near, _mm256_setzero_si256());
        num_zero += (size_t)__builtin_popcount((unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(zeros)));
    }
    num_zero -= LIST_ROOM(depth) - depth / GROUP; /* beyond the row's end */
    to->is_listed = num_zero > depth / GROUP / 2;
    if (!to->is_listed) return;
    for (size_t k = 0; k < depth; k += 32)
        to->num_some += list_groups(read_bytes(to->near + k, depth - k, 0), k / GROUP, to->some + to->num_some);
}

/* Adds to the sums what eight or sixteen products make with `ones`. */
INLINE __m256i widened(__m256i sums, __m256i products) {
    return _mm256_add_epi32(sums, _mm256_madd_epi16(products, _mm256_set1_epi16(1)));
}

INLINE __m256i near_products(__m256i inputs, __m256i more_inputs, const __m256i *columns, int is_two) {
    __m256i products = _mm256_maddubs_epi16(inputs, columns[0]);
    return is_two ? _mm256_add_epi16(products, _mm256_maddubs_epi16(more_inputs, columns[2])) : products;
}

INLINE __m256i far_products(__m256i inputs, __m256i columns) {
    return _mm256_maddubs_epi16(_mm256_abs_epi8(inputs), _mm256_sign_epi8(columns, inputs));
}

/* Adds `groups` groups, one or two, from k on to the sums of both halves of a tile. */
INLINE void add_near(const int8_t *numbers, const InputRow *rows, size_t k, size_t groups, size_t num_rows,
                     __m256i *lefts, __m256i *rights) {
    const __m256i *columns = (const __m256i *)(numbers + k * TILE);
    IN_REGISTERS for (size_t r = 0; r < num_rows; r++) {
        const uint8_t *near = rows[r].near + k;
        __m256i inputs = _mm256_set1_epi32(four_bytes(near)), more_inputs = inputs;
        if (groups == 2) more_inputs = _mm256_set1_epi32(four_bytes(near + GROUP));
        lefts[r] = widened(lefts[r], near_products(inputs, more_inputs, columns, groups == 2));
        rights[r] = widened(rights[r], near_products(inputs, more_inputs, columns + 1, groups == 2));
        /* One row after the other: there are registers for no more than one at a time. */
        if (num_rows == ROWS) __asm__ volatile("" : "+x"(lefts[r]), "+x"(rights[r]));
    }
}

INLINE void add_listed(const int8_t *numbers, const Listed *listed, size_t count, int is_far, __m256i *left,
                       __m256i *right) {
    for (size_t i = 0; i < count; i++) {
        const __m256i *columns = (const __m256i *)(numbers + (size_t)listed[i].group * GROUP * TILE);
        __m256i inputs = _mm256_set1_epi32(listed[i].bytes);
        __m256i more_left = is_far ? far_products(inputs, columns[0]) : _mm256_maddubs_epi16(inputs, columns[0]);
        __m256i more_right = is_far ? far_products(inputs, columns[1]) : _mm256_maddubs_epi16(inputs, columns[1]);
        *left = widened(*left, more_left);
        *right = widened(*right, more_right);
    }
}

/* A tile of columns for num_rows rows, at most ROWS, from `row` on: `groups` at once, or 0: those that are listed. */
INLINE void multiply_groups(const Product *product, size_t tile, size_t row, size_t num_rows, size_t groups) {
    const Weights *weights = product->weights;
    size_t depth = weights->depth, first = tile * TILE, k = 0;
    const int8_t *numbers = weights->numbers + first * depth;
    const InputRow *rows = product->rows + row;
    __m256i lefts[ROWS], rights[ROWS];
    for (size_t r = 0; r < num_rows; r++) lefts[r] = rights[r] = _mm256_setzero_si256();
    if (groups) {
        for (; k + groups * GROUP <= depth; k += groups * GROUP)
            add_near(numbers, rows, k, groups, num_rows, lefts, rights);
        if (k < depth) add_near(numbers, rows, k, 1, num_rows, lefts, rights);
    }
    IN_REGISTERS for (size_t r = 0; r < num_rows; r++) {
        if (!groups) add_listed(numbers, rows[r].some, rows[r].num_some, 0, &lefts[r], &rights[r]);
        add_listed(numbers, rows[r].far, rows[r].num_far, 1, &lefts[r], &rights[r]);
        put(product, lefts[r], rights[r], row + r, first);
    }
}

INLINE void multiply_rows(const Product *product, size_t tile, size_t row, size_t num_rows) {
    int are_listed = 1;
    for (size_t r = 0; r < num_rows; r++) are_listed &= product->rows[row + r].is_listed;
    if (are_listed) multiply_groups(product, tile, row, num_rows, 0);
    else if (product->weights->fit_in_fours) multiply_groups(product, tile, row, num_rows, 2);
    else multiply_groups(product, tile, row, num_rows, 1);
}
#endif
