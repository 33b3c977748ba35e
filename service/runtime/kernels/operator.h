/* What the operators have in common: their inputs, outputs and errors.
 *
 * Knows: ONNX Runtime's interface. Does not know: any operator.
 */
#ifndef DRAGOMAN_OPERATOR_H
#define DRAGOMAN_OPERATOR_H

#include "kernels.h"
#include "onnxruntime.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define MAX_RANK 4
#define EXPORTED __attribute__((visibility("default")))
#define NUM_ATTRIBUTES 2
#define CALL(place, ...) (((Status * (*)()) api[place])(__VA_ARGS__))
#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        Status *status_ = (call);                                                                                      \
        if (status_) return status_;                                                                                   \
    } while (0)
#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) return CALL(CREATE_STATUS, INVALID_ARGUMENT, "dragoman: not so: " #condition);               \
    } while (0)

extern const Function *api;
extern const Kernels *kernels; /* those that are used here */

typedef struct {
    int64_t counts[NUM_ATTRIBUTES]; /* num_heads, num_beams */
    float epsilon;
    const Weights *weights; /* that were packed when the session was made; NULL: none */
    Rounding rounding;      /* of their products */
} Attributes;

typedef Status *Compute(const Attributes *, Context *);

Compute compute_embed, compute_embed_int8, compute_add_norm, compute_add_norm_round, compute_best_candidates;
Compute compute_self_attention, compute_self_attention_int8, compute_self_attention_int8_round;
Compute compute_cross_attention, compute_cross_attention_int8, compute_cross_attention_int8_round;
Compute compute_sentence_attention, compute_sentence_attention_round;

Compute compute_product, compute_product_round;
Status *hold_weights(const void *info, int rounds, Attributes *attributes);
void release_weights(const Weights *weights);

typedef struct {
    void *data;
    int64_t shape[MAX_RANK];
    size_t rank, size; /* size: how many numbers */
} Array;

static inline Status *array_of(const Value *value, Array *array) {
    Shape *shape;
    TRY(CALL(SHAPE, value, &shape));
    Status *status = CALL(NUM_DIMENSIONS, shape, &array->rank);
    if (!status && array->rank <= MAX_RANK) status = CALL(DIMENSIONS, shape, array->shape, array->rank);
    ((void (*)(Shape *))api[RELEASE_SHAPE])(shape);
    if (status) return status;
    CHECK(array->rank <= MAX_RANK);
    array->size = 1;
    for (size_t i = 0; i < array->rank; i++) array->size *= (size_t)array->shape[i];
    return CALL(DATA, value, &array->data);
}

static inline Status *input(Context *context, size_t index, Array *array) {
    const Value *value;
    TRY(CALL(INPUT, context, index, &value));
    return array_of(value, array);
}

static inline Status *output(Context *context, size_t index, const int64_t *shape, size_t rank, void *data) {
    Value *value;
    TRY(CALL(OUTPUT, context, index, shape, rank, &value));
    return CALL(DATA, value, data);
}

/* `work` for each number below `total`, on the session's threads; where there is no memory for it, it clears
 * `has_memory`, which is 1 before; NULL where it needs none. */
static inline Status *each(Context *context, size_t total, void (*work)(void *, size_t), void *job,
                           atomic_int *has_memory) {
    if (total == 1) work(job, 0);
    else TRY(CALL(PARALLEL_FOR, context, work, total, (size_t)0, job));
    CHECK(!has_memory || *has_memory);
    return NULL;
}

static inline Status *rounding_of(const Array *scale, const Array *zero_point, Rounding *rounding) {
    CHECK(scale->size == 1 && zero_point->size == 1);
    *rounding = (Rounding){*(float *)scale->data, *(uint8_t *)zero_point->data};
    return NULL;
}

static inline Status *rounding_from(Context *context, size_t first, Rounding *rounding) {
    Array scale, zero_point;
    TRY(input(context, first, &scale));
    TRY(input(context, first + 1, &zero_point));
    return rounding_of(&scale, &zero_point, rounding);
}
#endif
