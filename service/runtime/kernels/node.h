/* Nodes of a graph: one operator, or a chain of several that ONNX Runtime sees as one.
 *
 * Knows: in which order the operators of a node run, and where what they pass on lies. Does not know: what they do.
 */
#ifndef DRAGOMAN_NODE_H
#define DRAGOMAN_NODE_H

#include "operator.h"
#include <pthread.h>

typedef struct {
    const char *name;
    int inputs[MAX_INPUTS + 1], outputs[MAX_OUTPUTS + 1]; /* element types, ended by 0 */
    int num_counts, has_epsilon;                          /* which attributes it has */
    Compute *compute;                                     /* NULL: a chain */
    enum { NO_PRODUCT, PLAIN_PRODUCT, ROUNDED_PRODUCT } product;
} Description;

static inline size_t num_types(const int *types) {
    size_t count = 0;
    while (types[count]) count++;
    return count;
}

typedef struct {
    const Description *description;
    Attributes attributes;
    size_t inputs[MAX_INPUTS], outputs[MAX_OUTPUTS], num_inputs, num_outputs;
} Part;

/* Values are numbered: first the inputs of the node, then its outputs, then what parts pass on to each other. */
typedef struct {
    size_t num_inputs, num_outputs, num_values, num_parts;
    Part *parts;
    int *types;           /* of the values; 0: not known yet */
    size_t *last_readers; /* the part after which nobody needs a value */
    Array *constants;     /* of the values, those of inputs that never change; others have no data */
    Run *idle;            /* runs that are over: kept for their memory, as many and as large as there were at once */
    pthread_mutex_t keeping;
} Node;

/* What a thread's next node does, if it is a chain, after its last part: asks whether to begin again with the first.
 * Inputs and outputs stay where they are; what is asked may change the numbers there. For graphs of nothing but a
 * chain. */
typedef struct {
    int (*again)(void *data); /* NULL: once is enough */
    void *data;
} Repetition;

extern _Thread_local Repetition repetition;

/* make_node.c. Of one operator, whose attributes are those of the node. */
Status *make_node(const Description *description, const void *info, Node **made);
/* Of all that the attribute "parts" says (export/chain.py), in the words of `descriptions`. */
Status *make_chain(const Description *chain, const Description *descriptions, size_t num_descriptions,
                   const void *info, Node **made);
void drop_node(Node *node);

/* run_node.c. */
Status *array_of(const Value *value, int type, Array *array);
Status *run_node(Node *node, Context *context);
void drop_runs(Node *node);
#endif
