/* What a node does when its turn comes. */
#include "node.h"
#include "team.h"

#define ALIGNMENT 64
#define NOBODY SIZE_MAX

_Thread_local Repetition repetition;

typedef struct {
    void *data;
    size_t size, value; /* bytes; whose they are, or NOBODY's */
} Memory;

struct Run {
    const Node *node;
    Context *context;
    Team *team; /* NULL: the session's threads are asked for each job */
    Array *values;
    Memory *memories; /* as many as there are values, at most */
    size_t num_memories;
    Repetition repetition;
    int is_repeated; /* the outputs are there */
    Status *status;
    Run *next;
};

static size_t bytes_of(int type) {
    return type == INT64 ? sizeof(int64_t) : type == UINT8 || type == INT8 ? sizeof(int8_t) : sizeof(float);
}

/* How many bytes an array of numbers of so many takes; 0: more than there can be. */
static int count(const int64_t *shape, size_t rank, size_t bytes, size_t *size) {
    *size = bytes;
    for (size_t i = 0; i < rank; i++)
        if (shape[i] < 0 || __builtin_mul_overflow(*size, (size_t)shape[i], size)) return 0;
    return *size <= PTRDIFF_MAX - ALIGNMENT;
}

Status *array_of(const Value *value, int type, Array *array) {
    Shape *shape;
    int found = 0;
    TRY(CALL(SHAPE, value, &shape));
    Status *status = CALL(ELEMENT_TYPE, shape, &found);
    if (!status) status = CALL(NUM_DIMENSIONS, shape, &array->rank);
    if (!status && array->rank <= MAX_RANK) status = CALL(DIMENSIONS, shape, array->shape, array->rank);
    ((void (*)(Shape *))api[RELEASE_SHAPE])(shape);
    if (status) return status;
    CHECK(array->rank <= MAX_RANK && (!type || found == type));
    CHECK(count(array->shape, array->rank, 1, &array->size));
    return CALL(DATA, value, &array->data);
}

void drop_runs(Node *node) {
    for (Run *run = node->idle, *next; run; run = next) {
        next = run->next;
        for (size_t i = 0; i < run->num_memories; i++) free(run->memories[i].data);
        free(run->memories);
        free(run->values);
        free(run);
    }
}

static Run *take_run(Node *node) {
    pthread_mutex_lock(&node->keeping);
    Run *run = node->idle;
    if (run) node->idle = run->next;
    pthread_mutex_unlock(&node->keeping);
    if (run) return run;
    run = calloc(1, sizeof *run);
    if (!run) return NULL;
    run->node = node;
    run->values = malloc(node->num_values * sizeof *run->values);
    run->memories = calloc(node->num_values, sizeof *run->memories);
    if (run->values && run->memories) {
        memcpy(run->values, node->constants, node->num_values * sizeof *run->values);
        return run;
    }
    free(run->values);
    free(run->memories);
    free(run);
    return NULL;
}

static void keep_run(Node *node, Run *run) {
    pthread_mutex_lock(&node->keeping);
    run->next = node->idle;
    node->idle = run;
    pthread_mutex_unlock(&node->keeping);
}

/* The smallest of a run's memories that is nobody's and large enough; else another of these, made larger; else one
 * more. NULL: there is none. */
static Memory *find_memory(Run *run, size_t size) {
    Memory *found = NULL;
    for (Memory *memory = run->memories; memory < run->memories + run->num_memories; memory++) {
        if (memory->value != NOBODY) continue;
        int is_better = !found || (memory->size >= size ? found->size < size || memory->size < found->size
                                                        : found->size < size && memory->size > found->size);
        if (is_better) found = memory;
    }
    if (!found) {
        found = &run->memories[run->num_memories++];
        *found = (Memory){NULL, 0, NOBODY};
    }
    if (found->data && found->size >= size) return found;
    free(found->data);
    found->size = (size + ALIGNMENT) / ALIGNMENT * ALIGNMENT;
    found->data = aligned_alloc(ALIGNMENT, found->size);
    if (!found->data) found->size = 0;
    return found->data ? found : NULL;
}

Status *output(const Call *call, size_t index, const int64_t *shape, size_t rank, void *data) {
    Run *run = call->run;
    const Node *node = run->node;
    size_t place = call->outputs[index];
    Array *array = &run->values[place];
    size_t before = array->size, number = bytes_of(node->types[place]), bytes;
    CHECK(rank <= MAX_RANK && count(shape, rank, number, &bytes));
    array->rank = rank, array->size = bytes / number;
    memcpy(array->shape, shape, rank * sizeof *shape);
    if (place < node->num_inputs + node->num_outputs && run->is_repeated) {
        CHECK(array->size == before);
    } else if (place < node->num_inputs + node->num_outputs) {
        Value *value = NULL;
        TRY(CALL(OUTPUT, run->context, place - node->num_inputs, shape, rank, &value));
        CHECK(value); /* the node has no such output, whatever its parts say */
        TRY(CALL(DATA, value, &array->data));
    } else {
        Memory *memory = find_memory(run, bytes);
        CHECK(memory);
        memory->value = place;
        array->data = memory->data;
    }
    *(void **)data = array->data;
    return NULL;
}

int has_team(const Call *call) { return call->run->team != NULL; }

Status *each(const Call *call, size_t total, void (*work)(void *, size_t), void *job, atomic_int *has_memory) {
    Team *team = call->run->team;
    CHECK(total <= MAX_NUMBERS);
    if (!total) return NULL;
    if (total == 1) work(job, 0);
    else if (team) share_work(team, total, work, job);
    else TRY(CALL(PARALLEL_FOR, call->run->context, work, total, (size_t)0, job));
    CHECK(!has_memory || *has_memory);
    return NULL;
}

static Status *run_parts(Run *run) {
    const Node *node = run->node;
    for (size_t i = 0; i < node->num_parts; i++) {
        const Part *part = &node->parts[i];
        Call call = {run, &part->attributes, run->values, part->inputs, part->outputs};
        TRY(part->description->compute(&call));
        for (Memory *memory = run->memories; memory < run->memories + run->num_memories; memory++)
            if (memory->value != NOBODY && node->last_readers[memory->value] == i) memory->value = NOBODY;
    }
    return NULL;
}

static void join(void *job, size_t number) {
    Run *run = job;
    (void)number;
    if (atomic_exchange(&run->team->has_leader, 1)) {
        help_team(run->team);
        return;
    }
    do run->status = run_parts(run);
    while (!run->status && run->repetition.again && (run->is_repeated = run->repetition.again(run->repetition.data)));
    atomic_store_explicit(&run->team->is_over, 1, memory_order_release);
}

static Status *run_as_team(Run *run) {
    Team team = {0};
    run->team = &team;
    Status *status = CALL(PARALLEL_FOR, run->context, join, (size_t)MAX_TEAM, (size_t)0, run);
    run->team = NULL;
    return status ? status : run->status;
}

static Status *run_with(Run *run) {
    const Node *node = run->node;
    for (size_t i = 0; i < node->num_inputs; i++) {
        const Value *value = NULL;
        if (node->constants[i].data || !node->types[i]) continue; /* that nobody reads */
        TRY(CALL(INPUT, run->context, i, &value));
        CHECK(value);
        TRY(array_of(value, node->types[i], &run->values[i]));
    }
    run->is_repeated = 0;
    return node->num_parts > 1 ? run_as_team(run) : run_parts(run);
}

Status *run_node(Node *node, Context *context) {
    Run *run = take_run(node);
    CHECK(run);
    run->repetition = repetition;
    repetition = (Repetition){NULL, NULL};
    run->context = context;
    Status *status = run_with(run);
    for (size_t i = 0; i < run->num_memories; i++) run->memories[i].value = NOBODY; /* after an error */
    keep_run(node, run);
    return status;
}
