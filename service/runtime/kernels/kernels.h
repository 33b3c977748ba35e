/* What is computed, and for which kind of processor.
 *
 * kernels.c is compiled once for each kind; processor.c chooses. What each operator means
 * in ONNX's own operators: export/fused.py.
 */
#ifndef DRAGOMAN_KERNELS_H
#define DRAGOMAN_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#define MAX_HEAD_WIDTH 512
#define MULTIPLE 16 /* widths of rows and heads are multiples of it */
#define BLOCK 64    /* numbers of a row of logits that are looked at as one */

#define TILE 16         /* columns of packed weights that stand side by side */
#define GROUP 4         /* numbers of a column that do */
#define MAX_DEPTH 65536 /* of columns, whose sums have room in 32 bits */
#define PACKED_WIDTH(width) (((width) + TILE - 1) / TILE * TILE)

typedef struct {
    float scale;
    int zero_point;
} Rounding;

/* A matrix (depth, width) of bytes, the scale and the bias of each column, and how what it is multiplied by is
 * rounded. */
typedef struct {
    size_t depth, width;
    const int8_t *numbers;
    const float *scales, *bias;
    Rounding rounding;
} Columns;

/* The same for multiplying: the numbers in tiles (depth / GROUP, TILE, GROUP), and what is done to each column's sums:
 * (sum + correction) * factor + bias. All in one piece of memory, of PACKED_BYTES. And where the inputs' window starts,
 * and whether four products of what is near fit into 16 bits. */
typedef struct {
    size_t depth, width;
    int8_t *numbers;
    int32_t *corrections;
    float *factors, *bias;
    int start, fit_in_fours;
} Weights;
#define PACKED_BYTES(depth, width) (PACKED_WIDTH(width) * ((depth) + sizeof(int32_t) + 2 * sizeof(float)))

typedef struct {
    uint32_t group;
    int32_t bytes;
} Listed;

/* A row of bytes in two parts: what is near a window's start (depth,), and of what is far the groups that are not zero;
 * where the near one is mostly zero, its groups that are not, too. LIST_ROOM for each list. */
typedef struct {
    uint8_t *near;
    Listed *far, *some;
    size_t num_far, num_some;
    int is_listed;
} InputRow;
#define LIST_ROOM(depth) (((depth) / GROUP + 7) / 8 * 8)

/* Rows of bytes (num_rows, depth), where they are split also so; and where the products go (num_rows, width): to
 * `rounded`, or where that is NULL to `plain`. */
typedef struct {
    const Weights *weights;
    const uint8_t *x;
    InputRow *rows;
    size_t num_rows;
    float *plain;
    uint8_t *rounded;
    Rounding rounding;
} Product;

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
    /* x times as many factors, rounded to unsigned bytes. */
    void (*scale_round_row)(const float *x, const float *factors, size_t size, Rounding rounding, uint8_t *to);
    /* x / (1 + e^-x). */
    void (*silu_row)(const float *x, size_t size, float *to);
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
    /* Fills PACKED_BYTES of `memory`; 0: there is a -128, whose size is no signed byte. */
    int (*pack_weights)(const Columns *from, void *memory, Weights *to);
    /* x (depth,) in parts, for a window from `start` on; there is room for them. NULL: not needed. */
    void (*split)(const uint8_t *x, size_t depth, int start, InputRow *to);
    /* All rows of the columns' tiles from `first` on, before `last`. */
    void (*multiply_tiles)(const Product *product, size_t first, size_t last);
} Kernels;

extern const Kernels *kernels;   /* those that are used here; NULL: none */
extern const char *kernels_name; /* "none" for none */
void choose_kernels(void);
#endif
