/* The part of ONNX Runtime's C interface that a library of operators needs.
 *
 * Its packages for Python come without the header. Functions stand in a table to which each version only adds at the
 * end (version 18 has all that are used); so do the fields of a custom operator.
 */
#ifndef DRAGOMAN_ONNXRUNTIME_H
#define DRAGOMAN_ONNXRUNTIME_H

#include <stddef.h>
#include <stdint.h>

#define API_VERSION 18
#define INVALID_ARGUMENT 2
#define VARIADIC 2 /* as many inputs or outputs as a node has */
enum { ANY = 0, FLOAT = 1, UINT8 = 2, INT8 = 3, INT32 = 6, INT64 = 7 }; /* element types, as in ONNX */

typedef struct Status Status; /* NULL: all is well */
typedef struct Value Value;
typedef struct Context Context;
typedef struct Shape Shape;
typedef void (*Function)(void);

typedef struct {
    const Function *(*table)(uint32_t version);
    const char *(*version)(void);
} Base;

extern const Function *api;

/* Places in the table. */
enum {
    CREATE_STATUS = 0,
    CREATE_DOMAIN = 26,
    ADD_TO_DOMAIN = 27,
    ADD_DOMAIN = 28,
    DATA = 51,
    ELEMENT_TYPE = 60,
    NUM_DIMENSIONS = 61,
    DIMENSIONS = 62,
    SHAPE = 65,
    ATTRIBUTE_FLOAT = 85,
    ATTRIBUTE_INT64 = 86,
    ATTRIBUTE_STRING = 87,
    INPUT = 90,
    OUTPUT = 91,
    RELEASE_SHAPE = 99,
    CONSTANT_INPUT = 249,
    PARALLEL_FOR = 274
};

typedef struct Operator {
    uint32_t version;
    void *unused;
    const char *(*name)(const struct Operator *);
    const char *(*provider)(const struct Operator *);
    int (*input_type)(const struct Operator *, size_t);
    size_t (*num_inputs)(const struct Operator *);
    int (*output_type)(const struct Operator *, size_t);
    size_t (*num_outputs)(const struct Operator *);
    void *unused_compute;
    void (*destroy)(void *kernel);
    int (*input_kind)(const struct Operator *, size_t);
    int (*output_kind)(const struct Operator *, size_t);
    int (*input_memory)(const struct Operator *, size_t);
    int (*variadic[4])(const struct Operator *);
    Status *(*create)(const struct Operator *, const void *api, const void *info, void **kernel);
    Status *(*compute)(void *kernel, Context *);
    void *infer_shape;
    int (*first_version)(const struct Operator *);
    int (*last_version)(const struct Operator *);
    void *aliases[4];
} Operator;
#endif
