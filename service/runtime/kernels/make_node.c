/* Nodes as a graph describes them. */
#include "node.h"

#define MAX_VALUES 16384

void drop_node(Node *node) {
    if (!node) return;
    for (size_t i = 0; i < node->num_parts; i++)
        if (node->parts[i].attributes.weights) release_weights(node->parts[i].attributes.weights);
    drop_runs(node);
    pthread_mutex_destroy(&node->keeping);
    free(node->parts);
    free(node->types);
    free(node->last_readers);
    free(node->constants);
    free(node);
}

static Node *empty_node(size_t num_inputs, size_t num_outputs, size_t num_values, size_t num_parts) {
    Node *node = calloc(1, sizeof *node);
    if (!node) return NULL;
    pthread_mutex_init(&node->keeping, NULL);
    node->num_inputs = num_inputs, node->num_outputs = num_outputs, node->num_values = num_values;
    node->parts = calloc(num_parts, sizeof *node->parts);
    node->types = calloc(num_values, sizeof *node->types);
    node->last_readers = calloc(num_values, sizeof *node->last_readers);
    node->constants = calloc(num_values, sizeof *node->constants);
    if (node->parts && node->types && node->last_readers && node->constants) return node;
    drop_node(node);
    return NULL;
}

/* The next part of a node: values must be there before they are read, be written once, and be of one type. */
static Status *add_part(Node *node, const Description *description, const Attributes *attributes,
                        const size_t *values) {
    Part part = {.description = description, .attributes = *attributes, .num_inputs = num_types(description->inputs),
                 .num_outputs = num_types(description->outputs)};
    for (size_t i = 0; i < part.num_inputs; i++) {
        size_t value = part.inputs[i] = values[i];
        CHECK(value < node->num_values && (value < node->num_inputs || node->types[value]));
        CHECK(!node->types[value] || node->types[value] == description->inputs[i]);
        node->types[value] = description->inputs[i];
        node->last_readers[value] = node->num_parts;
    }
    for (size_t i = 0; i < part.num_outputs; i++) {
        size_t value = part.outputs[i] = values[part.num_inputs + i];
        CHECK(value >= node->num_inputs && value < node->num_values && !node->types[value]);
        node->types[value] = description->outputs[i];
        node->last_readers[value] = node->num_parts;
    }
    node->parts[node->num_parts++] = part;
    return NULL;
}

/* Reads the inputs that never change, and packs the weights among them. */
static Status *take_constants(Node *node, const void *info) {
    for (size_t i = 0; i < node->num_inputs; i++) {
        const Value *value;
        int is_constant = 0;
        TRY(CALL(CONSTANT_INPUT, info, i, &is_constant, &value));
        if (is_constant) TRY(array_of(value, node->types[i], &node->constants[i]));
    }
    for (Part *part = node->parts; part < node->parts + node->num_parts; part++) {
        Array constants[MAX_INPUTS] = {0};
        for (size_t i = 0; i < part->num_inputs; i++) constants[i] = node->constants[part->inputs[i]];
        if (part->description->product)
            TRY(hold_weights(constants, part->description->product == ROUNDED_PRODUCT, &part->attributes));
    }
    return NULL;
}

static Status *finish(Node *node, const void *info, Status *status, Node **made) {
    if (!status) status = take_constants(node, info);
    if (status) drop_node(node);
    else *made = node;
    return status;
}

static Status *read_attributes(const Description *description, const void *info, Attributes *attributes) {
    static const char *const names[MAX_COUNTS] = {"num_heads", "num_beams"};
    for (int i = 0; i < description->num_counts; i++)
        TRY(CALL(ATTRIBUTE_INT64, info, names[i], &attributes->counts[i]));
    if (description->has_epsilon) TRY(CALL(ATTRIBUTE_FLOAT, info, "epsilon", &attributes->epsilon));
    return NULL;
}

Status *make_node(const Description *description, const void *info, Node **made) {
    size_t num_inputs = num_types(description->inputs), num_outputs = num_types(description->outputs);
    size_t values[MAX_INPUTS + MAX_OUTPUTS];
    for (size_t i = 0; i < num_inputs + num_outputs; i++) values[i] = i;
    Attributes attributes = {0};
    TRY(read_attributes(description, info, &attributes));
    Node *node = empty_node(num_inputs, num_outputs, num_inputs + num_outputs, 1);
    CHECK(node);
    return finish(node, info, add_part(node, description, &attributes, values), made);
}

/* The next word of a text as a number. */
static Status *next_number(char **words, int64_t *number) {
    const char *word = strtok_r(NULL, " ", words);
    char *end = NULL;
    CHECK(word);
    *number = strtoll(word, &end, 10);
    CHECK(end != word && !*end);
    return NULL;
}

static Status *next_size(char **words, size_t *size) {
    int64_t number = 0;
    TRY(next_number(words, &number));
    CHECK(number >= 0 && number <= MAX_VALUES);
    *size = (size_t)number;
    return NULL;
}

/* "NAME ATTRIBUTES INPUTS OUTPUTS": as many as the description says; epsilon as the bits of its float. */
static Status *read_part(Node *node, const Description *description, char **words) {
    Attributes attributes = {0};
    size_t values[MAX_INPUTS + MAX_OUTPUTS], count = num_types(description->inputs) + num_types(description->outputs);
    for (int i = 0; i < description->num_counts; i++) TRY(next_number(words, &attributes.counts[i]));
    if (description->has_epsilon) {
        int64_t number;
        TRY(next_number(words, &number));
        uint32_t bits = (uint32_t)number;
        memcpy(&attributes.epsilon, &bits, sizeof bits);
    }
    for (size_t i = 0; i < count; i++) TRY(next_size(words, &values[i]));
    return add_part(node, description, &attributes, values);
}

static Status *read_parts(Node *node, size_t num_parts, const Description *descriptions, size_t num_descriptions,
                          char **words) {
    while (node->num_parts < num_parts) {
        const char *name = strtok_r(NULL, " ", words);
        const Description *described = descriptions;
        CHECK(name);
        while (described < descriptions + num_descriptions && strcmp(described->name, name)) described++;
        CHECK(described < descriptions + num_descriptions && described->compute);
        TRY(read_part(node, described, words));
    }
    CHECK(!strtok_r(NULL, " ", words));
    return NULL;
}

/* "parts INPUTS OUTPUTS VALUES PARTS", numbers of these, and each part, of `text`, which is taken to pieces. */
static Status *parse(char *text, const Description *descriptions, size_t num_descriptions, const void *info,
                     Node **made) {
    char *words = NULL;
    size_t num_inputs, num_outputs, num_values, num_parts;
    const char *first = strtok_r(text, " ", &words);
    CHECK(first && !strcmp(first, "parts"));
    TRY(next_size(&words, &num_inputs));
    TRY(next_size(&words, &num_outputs));
    TRY(next_size(&words, &num_values));
    TRY(next_size(&words, &num_parts));
    CHECK(num_inputs + num_outputs <= num_values);
    Node *node = empty_node(num_inputs, num_outputs, num_values, num_parts);
    CHECK(node);
    return finish(node, info, read_parts(node, num_parts, descriptions, num_descriptions, &words), made);
}

/* The outputs are of the types that ONNX Runtime was told. */
static Status *check_outputs(const Description *chain, const Node *node) {
    size_t last = num_types(chain->outputs) - 1;
    CHECK(node->num_outputs > last);
    for (size_t i = 0; i < node->num_outputs; i++)
        CHECK(node->types[node->num_inputs + i] == chain->outputs[i < last ? i : last]);
    return NULL;
}

Status *make_chain(const Description *chain, const Description *descriptions, size_t num_descriptions,
                   const void *info, Node **made) {
    size_t size = 0;
    TRY(CALL(ATTRIBUTE_STRING, info, "parts", NULL, &size));
    char *text = malloc(size + 1);
    CHECK(text);
    text[size] = 0;
    Status *status = CALL(ATTRIBUTE_STRING, info, "parts", text, &size);
    if (!status) status = parse(text, descriptions, num_descriptions, info, made);
    free(text);
    if (status) return status;
    status = check_outputs(chain, *made);
    if (status) drop_node(*made);
    return status;
}
