/* PackedAttention, EmbedPacked, UnpackHeads: all tokens of several sentences, one after the other.
 *
 * P tokens of B sentences, the longest of S; M = heads times their width.
 */
#include "operator.h"

/* Where each sentence begins, to be freed; NULL: there is no memory, or not all of them have tokens, `num_tokens` in
 * all, or one has more than `longest`. */
static size_t *starts_of(const Array *lengths, size_t num_tokens, size_t longest) {
    size_t *starts = malloc((lengths->size + 1) * sizeof *starts), start = 0, i = 0;
    for (; starts && i < lengths->size; i++) {
        int64_t length = ((int64_t *)lengths->data)[i];
        if (length <= 0 || (size_t)length > longest || (size_t)length > num_tokens - start) break;
        starts[i] = start;
        start += (size_t)length;
    }
    if (i == lengths->size && start == num_tokens) return starts;
    free(starts);
    return NULL;
}

/* `work` for each sentence, while `*starts` says where they begin. */
static Status *each_sentence(const Call *call, const Array *lengths, size_t num_tokens, size_t longest,
                             const size_t **starts, void (*work)(void *, size_t), void *job) {
    size_t *made = starts_of(lengths, num_tokens, longest);
    CHECK(made);
    *starts = made;
    Status *status = each(call, lengths->size, work, job, NULL);
    free(made);
    return status;
}

typedef struct {
    const float *joined; /* (P, 3 * M) */
    const int64_t *lengths;
    size_t num_heads, width; /* of a head */
    const size_t *starts;
    float *context;   /* (P, M) */
    uint8_t *rounded; /* NULL: they are not */
    Rounding rounding;
    atomic_int has_memory;
} Sentences;

static void attend_head(void *job, size_t number) {
    Sentences *sentences = job;
    size_t sentence = number / sentences->num_heads, head = number % sentences->num_heads, width = sentences->width;
    size_t length = (size_t)sentences->lengths[sentence], all_heads = sentences->num_heads * width;
    float *scratch = malloc(kernels->sequence_scratch(length, width) * sizeof *scratch);
    if (!scratch) {
        sentences->has_memory = 0;
        return;
    }
    const float *query = sentences->joined + sentences->starts[sentence] * 3 * all_heads + head * width;
    size_t at = sentences->starts[sentence] * all_heads + head * width;
    kernels->attend_sequence(query, query + all_heads, query + 2 * all_heads, 3 * all_heads, length, width, scratch,
                             sentences->context + at, all_heads);
    free(scratch);
    for (size_t token = 0; sentences->rounded && token < length; token++, at += all_heads)
        kernels->round_row(sentences->context + at, width, sentences->rounding, sentences->rounded + at);
}

/* Inputs: queries, keys and values of all tokens (P, 3 * M), lengths (B,), what the same in ONNX's operators reads, the
 * rounding of the result. Output: contexts (P, M). */
static Status *attend_packed(const Call *call, int rounds) {
    Array joined = *input(call, 0), lengths = *input(call, 1);
    int64_t num_heads = call->attributes->counts[0];
    CHECK(joined.rank == 2 && joined.shape[1] > 0 && joined.shape[1] % (3 * MULTIPLE) == 0);
    CHECK(num_heads > 0 && joined.shape[1] / (3 * MULTIPLE) % num_heads == 0); /* a product could be too large */
    size_t num_tokens = (size_t)joined.shape[0], width = (size_t)joined.shape[1] / 3;
    Sentences sentences = {.joined = joined.data, .lengths = lengths.data, .num_heads = (size_t)num_heads,
                           .width = width / (size_t)num_heads, .has_memory = 1};
    if (rounds) TRY(rounding_from(call, 3, &sentences.rounding));
    TRY(output(call, 0, (int64_t[]){joined.shape[0], (int64_t)width}, 2,
               rounds ? (void *)&sentences.rounded : (void *)&sentences.context));
    size_t *starts = starts_of(&lengths, num_tokens, num_tokens);
    CHECK(starts);
    sentences.starts = starts;
    float *room = rounds ? malloc(num_tokens * width * sizeof *room) : NULL;
    if (rounds) sentences.context = room;
    sentences.has_memory = !rounds || room || !num_tokens;
    Status *status = NULL;
    if (sentences.has_memory)
        status = each(call, lengths.size * sentences.num_heads, attend_head, &sentences, &sentences.has_memory);
    free(room);
    free(starts);
    if (!status) CHECK(sentences.has_memory);
    return status;
}

Status *compute_packed_attention(const Call *call) { return attend_packed(call, 0); }

Status *compute_packed_attention_round(const Call *call) { return attend_packed(call, 1); }

typedef struct {
    const int64_t *ids, *lengths;
    const size_t *starts;
    const char *rows;
    const float *scales, *positions; /* no scales: the rows are no bytes */
    float factor;
    size_t width, longest;
    float *to;
} Embeddings;

static void embed_sentence(void *job, size_t number) {
    const Embeddings *all = job;
    const int64_t *ids = all->ids + number * all->longest;
    float *to = all->to + all->starts[number] * all->width;
    size_t row = all->width * (all->scales ? sizeof(int8_t) : sizeof(float));
    for (size_t s = 0; s < (size_t)all->lengths[number]; s++, to += all->width)
        kernels->embed(all->rows + (size_t)ids[s] * row, all->scales != NULL, all->scales ? all->scales[ids[s]] : 1,
                       all->factor, all->positions + s * all->width, all->width, to);
}

/* Inputs: ids (B, S), lengths (B,), the embedding (V, M), the scales (V,) of 8-bit rows, a factor, the positions
 * (T, M). Output: the rows of the ids times the factor, and those of their places in the sentence added: (P, M). */
static Status *embed_packed(const Call *call, int is_bytes) {
    Array ids = *input(call, 0), lengths = *input(call, 1), rows = *input(call, 2), scales = *input(call, 3);
    Array factor = *input(call, is_bytes ? 4 : 3), table = *input(call, is_bytes ? 5 : 4);
    size_t num_tokens = 0;
    CHECK(ids.rank == 2 && (int64_t)lengths.size == ids.shape[0] && factor.size == 1);
    CHECK(rows.rank == 2 && table.rank == 2 && rows.shape[1] == table.shape[1] && rows.shape[1] % MULTIPLE == 0);
    CHECK(ids.shape[1] <= table.shape[0] && (!is_bytes || (int64_t)scales.size == rows.shape[0]));
    Embeddings all = {.ids = ids.data, .lengths = lengths.data, .rows = rows.data, .positions = table.data,
                      .scales = is_bytes ? scales.data : NULL, .factor = *(float *)factor.data,
                      .width = (size_t)rows.shape[1], .longest = (size_t)ids.shape[1]};
    for (size_t b = 0; b < lengths.size; b++) {
        CHECK(all.lengths[b] > 0 && all.lengths[b] <= ids.shape[1]);
        for (int64_t s = 0; s < all.lengths[b]; s++) {
            int64_t id = all.ids[b * all.longest + (size_t)s];
            CHECK(id >= 0 && id < rows.shape[0]);
        }
        num_tokens += (size_t)all.lengths[b];
    }
    TRY(output(call, 0, (int64_t[]){(int64_t)num_tokens, rows.shape[1]}, 2, &all.to));
    return each_sentence(call, &lengths, num_tokens, all.longest, &all.starts, embed_sentence, &all);
}

Status *compute_embed_packed(const Call *call) { return embed_packed(call, 0); }

Status *compute_embed_packed_int8(const Call *call) { return embed_packed(call, 1); }

typedef struct {
    const float *x; /* (P, M) */
    const int64_t *lengths;
    const size_t *starts;
    size_t num_heads, width, longest, number; /* of a head; number: bytes of one */
    Rounding rounding;
    char *to;
} Unpacked;

static void unpack_sentence(void *job, size_t number) {
    const Unpacked *all = job;
    size_t length = (size_t)all->lengths[number], row = all->num_heads * all->width, bytes = all->width * all->number;
    const float *sentence = all->x + all->starts[number] * row;
    char *to = all->to + number * all->longest * row * all->number;
    for (size_t head = 0; head < all->num_heads; head++)
        for (size_t s = 0; s < all->longest; s++, to += bytes) {
            const float *from = sentence + (s < length ? s : length - 1) * row + head * all->width;
            if (all->number == sizeof(int8_t)) kernels->round_signed(from, all->width, all->rounding, (int8_t *)to);
            else memcpy(to, from, bytes);
        }
}

/* Inputs: x (P, M), lengths (B,), ids (B, S) for their shape, the scale of 8-bit results. Output: (B, H, S, D), each
 * head of a sentence for itself; behind its end stands its last token again. */
static Status *unpack_heads(const Call *call, int is_bytes) {
    Array x = *input(call, 0), lengths = *input(call, 1), ids = *input(call, 2);
    int64_t num_heads = call->attributes->counts[0];
    CHECK(x.rank == 2 && ids.rank == 2 && (int64_t)lengths.size == ids.shape[0]);
    CHECK(num_heads > 0 && x.shape[1] > 0 && x.shape[1] % num_heads == 0);
    int64_t width = x.shape[1] / num_heads;
    Unpacked all = {.x = x.data, .lengths = lengths.data, .num_heads = (size_t)num_heads, .width = (size_t)width,
                    .longest = (size_t)ids.shape[1], .number = is_bytes ? sizeof(int8_t) : sizeof(float)};
    if (is_bytes) {
        CHECK(input(call, 3)->size == 1);
        all.rounding.scale = *(float *)input(call, 3)->data;
    }
    TRY(output(call, 0, (int64_t[]){ids.shape[0], num_heads, ids.shape[1], width}, 4, &all.to));
    return each_sentence(call, &lengths, (size_t)x.shape[0], all.longest, &all.starts, unpack_sentence, &all);
}

Status *compute_unpack_heads(const Call *call) { return unpack_heads(call, 0); }

Status *compute_unpack_heads_int8(const Call *call) { return unpack_heads(call, 1); }
