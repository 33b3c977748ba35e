/* SentenceAttention: all tokens of each sentence. P tokens of B sentences, M = heads times their width. */
#include "operator.h"

typedef struct {
    const float *joined; /* (P, 3 * M) */
    const int64_t *lengths;
    size_t num_heads, width; /* of a head */
    const size_t *starts;    /* the first token of each sentence */
    float *context;          /* (P, M) */
    atomic_int has_memory;
} Sentences;

static void attend_head(void *job, size_t number) {
    Sentences *sentences = job;
    size_t sentence = number / sentences->num_heads, head = number % sentences->num_heads;
    size_t length = (size_t)sentences->lengths[sentence], all_heads = sentences->num_heads * sentences->width;
    float *scratch = malloc(kernels->sequence_scratch(length, sentences->width) * sizeof *scratch);
    if (!scratch) {
        sentences->has_memory = 0;
        return;
    }
    const float *query = sentences->joined + sentences->starts[sentence] * 3 * all_heads + head * sentences->width;
    float *context = sentences->context + sentences->starts[sentence] * all_heads + head * sentences->width;
    kernels->attend_sequence(query, query + all_heads, query + 2 * all_heads, 3 * all_heads, length, sentences->width,
                             scratch, context, all_heads);
    free(scratch);
}

static Status *attend_sentences(const int64_t *counts, Context *context, int rounds) {
    Array joined, lengths;
    Rounding rounding = {1, 0};
    TRY(input(context, 0, &joined));
    TRY(input(context, 1, &lengths));
    CHECK(joined.rank == 2 && joined.shape[1] > 0 && joined.shape[1] % (3 * MULTIPLE) == 0);
    CHECK(counts[0] > 0 && joined.shape[1] / (3 * MULTIPLE) % counts[0] == 0); /* a product could be too large */
    size_t num_tokens = (size_t)joined.shape[0], width = (size_t)joined.shape[1] / 3, start = 0;
    for (size_t i = 0; i < lengths.size; i++) {
        int64_t length = ((int64_t *)lengths.data)[i];
        CHECK(length > 0 && (size_t)length <= num_tokens - start);
        start += (size_t)length;
    }
    CHECK(start == num_tokens);
    if (rounds) TRY(rounding_from(context, 6, &rounding));
    int64_t shape[2] = {joined.shape[0], (int64_t)width};
    uint8_t *rounded = NULL;
    float *states = NULL;
    TRY(output(context, 0, shape, 2, rounds ? (void *)&rounded : (void *)&states));
    size_t bytes = lengths.size * sizeof(size_t);
    char *room = malloc(bytes + (rounds ? num_tokens * width * sizeof(float) : 0));
    CHECK(room || !lengths.size);
    size_t *starts = (size_t *)room;
    for (size_t i = lengths.size; i-- > 0; starts[i] = start) start -= (size_t)((int64_t *)lengths.data)[i];
    Sentences sentences = {joined.data, lengths.data, (size_t)counts[0], width / (size_t)counts[0], starts,
                           rounds ? (float *)(room + bytes) : states, 1};
    Status *status = each(context, lengths.size * sentences.num_heads, attend_head, &sentences,
                          &sentences.has_memory);
    if (rounds && !status) kernels->round_row(sentences.context, num_tokens * width, rounding, rounded);
    free(room);
    return status;
}

Status *compute_sentence_attention(const Attributes *attributes, Context *context) {
    return attend_sentences(attributes->counts, context, 0);
}

Status *compute_sentence_attention_round(const Attributes *attributes, Context *context) {
    return attend_sentences(attributes->counts, context, 1);
}
