/* The kernels as operators of ONNX Runtime, in the domain "dragoman".
 *
 * Knows: names and types of the operators. Does not know: what they do. What each means is said in ONNX's own operators
 * in every graph that has it (export/fused.py), under the same name and with the same inputs and outputs.
 */
#include "node.h"
#include <pthread.h>

const Function *api;

static const Description descriptions[] = {
    {"Embed", {INT64, INT32, FLOAT, FLOAT, FLOAT}, {FLOAT}, .compute = compute_embed},
    {"EmbedInt8", {INT64, INT32, INT8, FLOAT, FLOAT, FLOAT}, {FLOAT}, .compute = compute_embed_int8},
    {"EmbedPacked", {INT64, INT64, FLOAT, FLOAT, FLOAT}, {FLOAT}, .compute = compute_embed_packed},
    {"EmbedPackedInt8", {INT64, INT64, INT8, FLOAT, FLOAT, FLOAT}, {FLOAT}, .compute = compute_embed_packed_int8},
    {"NormRound", {FLOAT, FLOAT, FLOAT, FLOAT, UINT8}, {UINT8}, .has_epsilon = 1, .compute = compute_norm_round},
    {"AddNorm", {FLOAT, FLOAT, FLOAT, FLOAT}, {FLOAT, FLOAT}, .has_epsilon = 1, .compute = compute_add_norm},
    {"AddNormRound", {FLOAT, FLOAT, FLOAT, FLOAT, FLOAT, UINT8}, {FLOAT, UINT8}, .has_epsilon = 1,
     .compute = compute_add_norm_round},
    {"Round", {FLOAT, FLOAT, UINT8}, {UINT8}, .compute = compute_round},
    {"ScaleRound", {FLOAT, FLOAT, FLOAT, UINT8}, {UINT8}, .compute = compute_scale_round},
    {"Silu", {FLOAT}, {FLOAT}, .compute = compute_silu},
    {"SelfAttention", {FLOAT, FLOAT, FLOAT, INT32, INT32}, {FLOAT, FLOAT, FLOAT}, 1, .compute = compute_self_attention},
    {"SelfAttentionInt8", {FLOAT, INT8, INT8, INT32, INT32, FLOAT, FLOAT}, {FLOAT, INT8, INT8}, 1,
     .compute = compute_self_attention_int8},
    {"SelfAttentionInt8Round", {FLOAT, INT8, INT8, INT32, INT32, FLOAT, FLOAT, FLOAT, UINT8}, {UINT8, INT8, INT8},
     1, .compute = compute_self_attention_int8_round},
    {"CrossAttention", {FLOAT, FLOAT, FLOAT, INT32, INT32, INT64, INT64, FLOAT}, {FLOAT, FLOAT, FLOAT}, 2,
     .compute = compute_cross_attention},
    {"CrossAttentionInt8", {FLOAT, INT8, INT8, INT32, INT32, INT64, INT64, FLOAT, FLOAT, FLOAT}, {FLOAT, INT8, INT8},
     2, .compute = compute_cross_attention_int8},
    {"CrossAttentionInt8Round",
     {FLOAT, INT8, INT8, INT32, INT32, INT64, INT64, FLOAT, FLOAT, FLOAT, FLOAT, UINT8}, {UINT8, INT8, INT8}, 2,
     .compute = compute_cross_attention_int8_round},
    {"PackedAttention", {FLOAT, INT64, INT64}, {FLOAT}, 1, .compute = compute_packed_attention},
    {"PackedAttentionRound", {FLOAT, INT64, INT64, FLOAT, UINT8}, {UINT8}, 1,
     .compute = compute_packed_attention_round},
    {"UnpackHeads", {FLOAT, INT64, INT64}, {FLOAT}, 1, .compute = compute_unpack_heads},
    {"UnpackHeadsInt8", {FLOAT, INT64, INT64, FLOAT}, {INT8}, 1, .compute = compute_unpack_heads_int8},
    {"BestCandidates", {FLOAT, INT64}, {FLOAT, INT64}, .compute = compute_best_candidates},
    {"Product", {UINT8, INT8, FLOAT, FLOAT, UINT8, FLOAT}, {FLOAT}, .compute = compute_product,
     .product = PLAIN_PRODUCT},
    {"ProductRound", {UINT8, INT8, FLOAT, FLOAT, UINT8, FLOAT, FLOAT, UINT8}, {UINT8},
     .compute = compute_product_round, .product = ROUNDED_PRODUCT},
    /* Chains: any inputs; of the last output's type there may be several. */
    {"StepChain", {ANY}, {FLOAT, INT64, INT8}, .compute = NULL},
    {"EncoderChain", {ANY}, {INT8}, .compute = NULL},
};
#define NUM_OPERATORS (sizeof descriptions / sizeof *descriptions)

typedef struct {
    Operator interface;
    const Description *description;
} Described;

static Described operators[NUM_OPERATORS];
static int has_products;
static pthread_mutex_t registering = PTHREAD_MUTEX_INITIALIZER;

static const Description *of(const Operator *interface) { return ((const Described *)interface)->description; }
static int is_chain(const Operator *interface) { return !of(interface)->compute; }
static const char *name(const Operator *interface) { return of(interface)->name; }
static const char *provider(const Operator *interface) { return (void)interface, "CPUExecutionProvider"; }
static int input_type(const Operator *interface, size_t index) { return of(interface)->inputs[index]; }
static int output_type(const Operator *interface, size_t index) { return of(interface)->outputs[index]; }
static int zero(const Operator *interface, size_t index) { return (void)interface, (void)index, 0; }
static int one(const Operator *interface) { return (void)interface, 1; }
static int is_plain(const Operator *interface) { return !is_chain(interface); }

static size_t num_inputs(const Operator *interface) {
    return is_chain(interface) ? 1 : num_types(of(interface)->inputs);
}

static size_t num_outputs(const Operator *interface) { return num_types(of(interface)->outputs); }

static int input_kind(const Operator *interface, size_t index) {
    return (void)index, is_chain(interface) ? VARIADIC : 0;
}

static int output_kind(const Operator *interface, size_t index) {
    return is_chain(interface) && index + 1 == num_outputs(interface) ? VARIADIC : 0;
}

static Status *create(const Operator *interface, const void *table, const void *info, void **created) {
    (void)table;
    Node *node = NULL;
    if (is_chain(interface)) TRY(make_chain(of(interface), descriptions, NUM_OPERATORS, info, &node));
    else TRY(make_node(of(interface), info, &node));
    *created = node;
    return NULL;
}

static void destroy(void *node) { drop_node(node); }
static Status *compute(void *node, Context *context) { return run_node(node, context); }

/* Once, when the library is loaded: sessions are made by several threads while others run. */
__attribute__((constructor)) static void prepare(void) {
    const char *products = getenv("DRAGOMAN_PRODUCTS");
    has_products = !products || strcmp(products, "onnxruntime");
    choose_kernels();
    for (size_t i = 0; i < NUM_OPERATORS; i++)
        operators[i] = (Described){
            .interface = {.version = API_VERSION, .name = name, .provider = provider, .input_type = input_type,
                          .num_inputs = num_inputs, .output_type = output_type, .num_outputs = num_outputs,
                          .destroy = destroy, .input_kind = input_kind, .output_kind = output_kind,
                          .input_memory = zero, .variadic = {one, is_plain, one, one}, .create = create,
                          .compute = compute, .first_version = one, .last_version = one},
            .description = &descriptions[i],
        };
}

/* Which kernels run here. */
EXPORTED const char *dragoman_kernels(void) { return kernels_name; }

/* Whether products of bytes are ours. */
EXPORTED int dragoman_products(void) { return has_products; }

static Status *make_domain(void **domain) {
    void *made;
    TRY(CALL(CREATE_DOMAIN, "dragoman", &made));
    for (size_t i = 0; i < NUM_OPERATORS; i++)
        if (has_products || (descriptions[i].compute && !descriptions[i].product))
            TRY(CALL(ADD_TO_DOMAIN, made, &operators[i].interface));
    *domain = made;
    return NULL;
}

/* What ONNX Runtime looks for in a library of operators. */
EXPORTED Status *RegisterCustomOps(void *options, const Base *base) {
    static void *domain; /* of all sessions, for none of them owns it; made once, while others run */
    const Function *table = base->table(API_VERSION);
    Status *status = NULL;
    if (!kernels || !table) return NULL; /* an older processor or ONNX Runtime, which uses its own operators then */
    pthread_mutex_lock(&registering);
    if (!domain) {
        api = table;
        status = make_domain(&domain);
    }
    pthread_mutex_unlock(&registering);
    TRY(status);
    return CALL(ADD_DOMAIN, options, domain);
}
