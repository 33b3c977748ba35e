/* What is computed, and for which kind of processor.
 *
 * kernels.c is compiled once for each kind; library.c chooses. What each operator means
 * in ONNX's own operators: export/fused.py.
 */
#ifndef DRAGOMAN_KERNELS_H
#define DRAGOMAN_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#define MAX_HEAD_WIDTH 512
#define MULTIPLE 16 /* widths of rows and heads are multiples of it */
#define BLOCK 64    /* numbers of a row of logits that are looked at as one */

typedef struct {
    float scale;
    int zero_point;
} Rounding;

/* The cache of one attention layer: keys (places, num_heads, capacity, width) and as many values, in bytes with a scale
 * or in float. */
typedef struct {
    void *keys, *values;
    size_t num_heads, capacity, width;
    int is_bytes;
    float key_scale, value_scale;
} Cache;

typedef struct {
    /* x (size,) rounded to unsigned and signed bytes. */
    void (*round_row)(const float *x, size_t size, Rounding rounding, uint8_t *to);
    void (*round_signed)(const float *x, size_t size, Rounding rounding, int8_t *to);
    /* A row of an embedding, of bytes or of floats, times `scale` and `factor`, plus `position`; (width,) each. */
    void (*embed)(const void *row, int is_bytes, float scale, float factor, const float *position, size_t width,
                  float *to);
    /* x + update in `total`, and its LayerNormalization in `normed`; (width,) each. */
    void (*add_norm)(const float *x, const float *update, const float *weight, const float *bias, float epsilon,
                     size_t width, float *total, float *normed);
    /* Puts a key and a value (num_heads * width,) at `position` of `place`. */
    void (*remember)(const Cache *cache, size_t place, size_t position, const float *key, const float *value);
    /* The context (width,) of one head's query over the first `length` positions of `place`; room for that many
     * scores, and MULTIPLE more. */
    void (*attend)(const Cache *cache, size_t place, size_t head, size_t length, const float *query, float *scores,
                   float *context);
    /* One head of self-attention in a sentence of `length` tokens, whose queries, keys and values stand `stride`
     * numbers apart; `scratch` has room for sequence_scratch() numbers. */
    void (*attend_sequence)(const float *query, const float *key, const float *value, size_t stride, size_t length,
                            size_t width, float *scratch, float *context, size_t context_stride);
    size_t (*sequence_scratch)(size_t length, size_t width);
    /* The `count` largest logarithms of a row's probabilities, largest first, of equal ones the first; room for a
     * number for each block. */
    void (*best_candidates)(const float *logits, size_t size, size_t count, float *maxima, float *values, int64_t *ids);
} Kernels;

extern const Kernels kernels_v4, kernels_v3; /* x86-64-v4: AVX-512; x86-64-v3: AVX2 and FMA */
#endif
