/* What the operators have in common: what they read and write, and errors.
 *
 * Knows: ONNX Runtime's interface. Does not know: any operator, nodes.
 */
#ifndef DRAGOMAN_OPERATOR_H
#define DRAGOMAN_OPERATOR_H

#include "kernels.h"
#include "onnxruntime.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define MAX_RANK 4
#define MAX_INPUTS 13
#define MAX_OUTPUTS 4
#define MAX_COUNTS 2
#define EXPORTED __attribute__((visibility("default")))
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

typedef struct {
    void *data;
    int64_t shape[MAX_RANK];
    size_t rank, size; /* size: how many numbers */
} Array;

typedef struct {
    int64_t counts[MAX_COUNTS]; /* num_heads, num_beams */
    float epsilon;
    const Weights *weights; /* that were packed when the session was made; NULL: none */
    Rounding rounding;      /* of their products */
} Attributes;

typedef struct Run Run; /* of a node, which may be of several operators: run_node.c */

/* One operator at work. */
typedef struct {
    Run *run;
    const Attributes *attributes;
    const Array *values;   /* all of the node */
    const size_t *inputs;  /* which of them are read */
    const size_t *outputs; /* and which are written */
} Call;

typedef Status *Compute(const Call *);

Compute compute_embed, compute_embed_int8, compute_embed_packed, compute_embed_packed_int8;
Compute compute_norm_round, compute_add_norm, compute_add_norm_round, compute_best_candidates;
Compute compute_round, compute_scale_round, compute_silu;
Compute compute_self_attention, compute_self_attention_int8, compute_self_attention_int8_round;
Compute compute_cross_attention, compute_cross_attention_int8, compute_cross_attention_int8_round;
Compute compute_packed_attention, compute_packed_attention_round;
Compute compute_unpack_heads, compute_unpack_heads_int8;

Compute compute_product, compute_product_round;
/* constants: those of the inputs that are, by their number; others have no data. */
Status *hold_weights(const Array *constants, int rounds, Attributes *attributes);
void release_weights(const Weights *weights);

/* Makes room for an output. */
Status *output(const Call *call, size_t index, const int64_t *shape, size_t rank, void *data);
/* `work` for each number below `total`, on the session's threads; where there is no memory for it, it clears
 * `has_memory`, which is 1 before; NULL where it needs none. */
Status *each(const Call *call, size_t total, void (*work)(void *, size_t), void *job, atomic_int *has_memory);

/* Whether threads are awake for it: whether jobs are worth sharing that take less than a microsecond. */
int has_team(const Call *call);

static inline const Array *input(const Call *call, size_t index) { return &call->values[call->inputs[index]]; }

static inline Status *rounding_of(const Array *scale, const Array *zero_point, Rounding *rounding) {
    CHECK(scale->size == 1 && zero_point->size == 1 && scale->data && zero_point->data);
    *rounding = (Rounding){*(float *)scale->data, *(uint8_t *)zero_point->data};
    return NULL;
}

static inline Status *rounding_from(const Call *call, size_t first, Rounding *rounding) {
    return rounding_of(input(call, first), input(call, first + 1), rounding);
}
#endif
