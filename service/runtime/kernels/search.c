/* What follows a decoder step, for all its sentences in one call: the searches of service/decoding, which say what is
 * computed, and the rows of service/engine/running_batch.py. Only moves that are allowed within a batch: which
 * sentences come and go is decided by the caller.
 *
 * Knows: candidates, hypotheses, rows of a cache; that a chain may be asked to repeat itself. Does not know: graphs.
 */
#include "node.h"
#include <math.h>
#include <time.h>

#define MAX_BEAMS 16
#define SOME_DONE 1  /* a sentence's search is over */
#define SOME_LOOP 2  /* a sentence repeats itself; whether more than its source, repetition.py says */
#define SOME_MOVED 4 /* a beam may have another row than before */

/* Sentences (n) of one beam width K. Arrays as in beam.py, greedy.py, finished.py and running_batch.py. The order of
 * the fields is also in service/engine/unchanged_steps.py. */
typedef struct {
    int64_t num_sentences, num_beams, max_tokens, end, stops_at_beams, loops_from, loops_every, loops_period,
        loops_repeats;
    int64_t *rows, *slots;
    int32_t *lengths, *min_lengths, *max_lengths, *ids;
    double *length_penalties;
    float *totals;
    int32_t *finished_lengths, *finished_ids;
    double *finished_scores;
    float *finished_totals;
    uint8_t *done, *failed;
} Searches;

/* A step of R rows with C candidates each. Of a cache: blocks of rows of heads of positions. */
typedef struct {
    int64_t num_rows, num_candidates, num_groups, num_banned, places;
    int64_t num_blocks, max_rows, num_heads, capacity, position_bytes;
    int64_t most_steps, until, num_steps, found; /* of one run of a chain: until when one may begin, in ns; results */
    int64_t *candidate_ids, *banned;
    float *log_probabilities;
    int64_t *tokens, *query_rows, *row_queries;
    int32_t *cached, *scratch; /* positions of each row; room for max_tokens times K ids */
    char *cache;
    int64_t *moments; /* when each step of a run ended, in ns of CLOCK_MONOTONIC */
    Searches *groups;
} Step;

typedef struct {
    float total;
    int32_t parent, token;
} Extension;

/* Brings the candidates that may stand in a translation to the front of each row, in their order. */
static void without_banned(const Step *step) {
    for (int64_t row = 0; step->num_banned && row < step->num_rows; row++) {
        int64_t *ids = step->candidate_ids + row * step->num_candidates, kept = 0;
        float *values = step->log_probabilities + row * step->num_candidates;
        for (int64_t i = 0; i < step->num_candidates; i++) {
            int is_banned = 0;
            for (int64_t k = 0; k < step->num_banned; k++) is_banned |= ids[i] == step->banned[k];
            if (is_banned) continue;
            ids[kept] = ids[i];
            values[kept++] = values[i];
        }
    }
}

/* Whether it is time to look for a loop in `length` tokens, and they end in one, whatever the source
 * (repetition.py). */
static int may_loop(const Searches *of, const int32_t *ids, int64_t length) {
    if (length < of->loops_from || length % of->loops_every) return 0;
    for (int64_t period = 1; period <= of->loops_period && period < length; period++) {
        int64_t run = period, least = of->loops_repeats * period;
        while (run < length && ids[length - 1 - run] == ids[length - 1 - run + period]) run++;
        if (run >= (least > of->loops_from ? least : of->loops_from)) return 1;
    }
    return 0;
}

/* Puts the end token, as what cannot be, behind a row's other candidates where the sentence is too short for it. */
static void delay_end(const Step *step, const Searches *of, int64_t n) {
    int64_t count = step->num_candidates - step->num_banned;
    for (int64_t beam = 0; of->lengths[n] < of->min_lengths[n] && beam < of->num_beams; beam++) {
        int64_t first = of->rows[n * of->num_beams + beam] * step->num_candidates, place = 0;
        int64_t *ids = step->candidate_ids + first;
        float *values = step->log_probabilities + first;
        while (place < count && ids[place] != of->end) place++;
        if (place == count || isnan(values[place])) continue;
        memmove(ids + place, ids + place + 1, (size_t)(count - 1 - place) * sizeof *ids);
        memmove(values + place, values + place + 1, (size_t)(count - 1 - place) * sizeof *values);
        ids[count - 1] = of->end;
        values[count - 1] = -INFINITY;
    }
}

static int advance_greedy(const Step *step, const Searches *of) {
    int found = 0;
    for (int64_t n = 0; n < of->num_sentences; n++) {
        delay_end(step, of, n);
        int64_t row = of->rows[n], first = row * step->num_candidates, token = step->candidate_ids[first];
        int32_t *ids = of->ids + n * of->max_tokens;
        ids[of->lengths[n]++] = (int32_t)token;
        of->totals[n] += step->log_probabilities[first];
        of->failed[n] = isnan(of->totals[n]);
        of->done[n] = token == of->end || of->lengths[n] == of->max_lengths[n] || of->failed[n];
        step->tokens[row] = token;
        if (of->done[n]) found |= SOME_DONE;
        if (may_loop(of, ids, of->lengths[n])) found |= SOME_LOOP;
    }
    return found;
}

/* The best 2K extensions of a sentence, best first; of equal ones the first beam's, then the first candidate's. */
static int best_extensions(const Step *step, const Searches *of, int64_t n, Extension *best) {
    int64_t next[MAX_BEAMS] = {0}, beams = of->num_beams;
    const float *live = of->totals + n * beams;
    for (int64_t beam = 0; beam < beams; beam++) {
        const float *values = step->log_probabilities + of->rows[n * beams + beam] * step->num_candidates;
        for (int64_t i = 0; i < step->num_candidates - step->num_banned; i++)
            if (isnan(values[i])) return 0;
    }
    for (int64_t i = 0; i < 2 * beams; i++) {
        best[i].parent = -1;
        for (int64_t beam = 0; beam < beams; beam++) {
            if (next[beam] == 2 * beams) continue;
            int64_t place = of->rows[n * beams + beam] * step->num_candidates + next[beam];
            float total = live[beam] + step->log_probabilities[place];
            if (best[i].parent < 0 || total > best[i].total)
                best[i] = (Extension){total, (int32_t)beam, (int32_t)step->candidate_ids[place]};
        }
        next[best[i].parent]++;
    }
    return 1;
}

static double score_of(const Searches *of, int64_t n, float total) {
    return (double)total / pow((double)of->lengths[n], of->length_penalties[n]);
}

/* Puts an extension behind the finished hypotheses that are as good. lengths[n] counts its token already. */
static void finish(const Searches *of, int64_t n, Extension ended) {
    int64_t beams = of->num_beams, size = of->max_tokens, place = 0, length = of->lengths[n];
    double score = score_of(of, n, ended.total), *scores = of->finished_scores + n * beams;
    while (place < beams && scores[place] >= score) place++;
    if (place == beams) return;
    float *totals = of->finished_totals + n * beams;
    int32_t *lengths = of->finished_lengths + n * beams, *ids = of->finished_ids + n * beams * size;
    size_t behind = (size_t)(beams - 1 - place);
    memmove(scores + place + 1, scores + place, behind * sizeof *scores);
    memmove(totals + place + 1, totals + place, behind * sizeof *totals);
    memmove(lengths + place + 1, lengths + place, behind * sizeof *lengths);
    memmove(ids + (place + 1) * size, ids + place * size, behind * (size_t)size * sizeof *ids);
    scores[place] = score, totals[place] = ended.total, lengths[place] = (int32_t)length;
    memcpy(ids + place * size, of->ids + (n * beams + ended.parent) * size, (size_t)(length - 1) * sizeof *ids);
    ids[place * size + length - 1] = ended.token;
}

/* Each beam becomes its parent's ids and a token. */
static void extend(const Step *step, const Searches *of, int64_t n, const Extension *chosen) {
    int64_t beams = of->num_beams, size = of->max_tokens, length = of->lengths[n];
    int32_t *ids = of->ids + n * beams * size;
    size_t bytes = (size_t)(length - 1) * sizeof *ids;
    int stay = 1;
    for (int64_t beam = 0; beam < beams; beam++) stay &= chosen[beam].parent == beam;
    for (int64_t beam = 0; !stay && beam < beams; beam++)
        memcpy(step->scratch + beam * size, ids + chosen[beam].parent * size, bytes);
    for (int64_t beam = 0; beam < beams; beam++) {
        if (!stay) memcpy(ids + beam * size, step->scratch + beam * size, bytes);
        ids[beam * size + length - 1] = chosen[beam].token;
        of->totals[n * beams + beam] = chosen[beam].total;
    }
}

/* The positions of row `source` into row `target`. */
static void copy_row(const Step *step, int64_t source, int64_t target) {
    size_t head_bytes = (size_t)(step->capacity * step->position_bytes);
    size_t bytes = (size_t)(step->cached[source] * step->position_bytes);
    for (int64_t block = 0; block < step->num_blocks; block++) {
        char *rows = step->cache + (size_t)(block * step->max_rows * step->num_heads) * head_bytes;
        for (int64_t head = 0; head < step->num_heads; head++)
            memcpy(rows + (size_t)(target * step->num_heads + head) * head_bytes,
                   rows + (size_t)(source * step->num_heads + head) * head_bytes, bytes);
    }
    step->cached[target] = step->cached[source];
}

/* Gives each beam a row that holds its parent's past: the first child has the parent's, others copy it into rows whose
 * beams have no child. Returns whether any beam has another parent than itself. */
static int place(const Step *step, const Searches *of, int64_t n, const Extension *chosen) {
    int64_t beams = of->num_beams, *rows = of->rows + n * beams, old[MAX_BEAMS], spare = 0;
    int stay = 1, has_child[MAX_BEAMS] = {0}, is_taken[MAX_BEAMS] = {0};
    for (int64_t beam = 0; beam < beams; beam++) {
        stay &= chosen[beam].parent == beam;
        has_child[chosen[beam].parent] = 1;
        old[beam] = rows[beam];
    }
    for (int64_t beam = 0; !stay && beam < beams; beam++) {
        int64_t parent = chosen[beam].parent;
        rows[beam] = old[parent];
        if (is_taken[parent]) {
            while (has_child[spare]) spare++;
            rows[beam] = old[spare++];
            copy_row(step, old[parent], rows[beam]);
        }
        is_taken[parent] = 1;
    }
    for (int64_t beam = 0; beam < beams; beam++) {
        step->tokens[rows[beam]] = chosen[beam].token;
        if (stay) continue;
        step->query_rows[of->slots[n] * step->places + beam] = rows[beam];
        step->row_queries[rows[beam]] = of->slots[n] * step->places + beam;
    }
    for (int64_t beam = beams; !stay && beam < step->places; beam++)
        step->query_rows[of->slots[n] * step->places + beam] = rows[0];
    return !stay;
}

static int advance_beams(const Step *step, const Searches *of) {
    Extension best[2 * MAX_BEAMS], chosen[2 * MAX_BEAMS];
    int found = 0;
    int64_t beams = of->num_beams, count;
    for (int64_t n = 0; n < of->num_sentences; n++) {
        delay_end(step, of, n);
        of->failed[n] = !best_extensions(step, of, n, best);
        int is_last = ++of->lengths[n] == of->max_lengths[n];
        of->done[n] = is_last || of->failed[n];
        if (of->failed[n]) {
            found |= SOME_DONE;
            continue;
        }
        for (int64_t i = 0; i < beams; i++)
            if ((is_last || best[i].token == of->end) && best[i].total > -INFINITY) finish(of, n, best[i]);
        count = 0;
        for (int ends = 0; ends < 2; ends++) /* the best that do not end, in order, before those that do */
            for (int64_t i = 0; i < 2 * beams; i++)
                if ((best[i].token == of->end) == ends) chosen[count++] = best[i];
        extend(step, of, n, chosen);
        double worst = of->finished_scores[n * beams + beams - 1];
        if (worst > -INFINITY && (of->stops_at_beams || score_of(of, n, chosen[0].total) <= worst)) of->done[n] = 1;
        if (of->done[n]) found |= SOME_DONE;
        if (may_loop(of, of->ids + n * beams * of->max_tokens, of->lengths[n])) found |= SOME_LOOP;
        if (place(step, of, n, chosen)) found |= SOME_MOVED;
    }
    return found;
}

/* What the caller compares with its own structures. */
EXPORTED int dragoman_sizes(void) { return (int)(sizeof(Searches) << 16 | sizeof(Step)); }

/* Returns what the caller must look at: SOME_DONE, SOME_LOOP, SOME_MOVED. */
EXPORTED int64_t dragoman_advance(const Step *step) {
    int found = 0;
    for (int64_t row = 0; row < step->num_rows; row++) step->cached[row]++;
    without_banned(step);
    for (int64_t i = 0; i < step->num_groups; i++)
        found |= (step->groups[i].num_beams == 1 ? advance_greedy : advance_beams)(step, &step->groups[i]);
    return found;
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

static int advance_and_ask(void *data) {
    Step *step = data;
    step->found |= dragoman_advance(step);
    int64_t moment = step->moments[step->num_steps++] = now();
    return !(step->found & (SOME_DONE | SOME_LOOP)) && step->num_steps < step->most_steps && moment < step->until;
}

/* Before a run of the step's graph: if that is a chain, it advances the searches itself, and goes on with the next step
 * as long as there is nothing to look at. NULL: no more. Of this thread. */
EXPORTED void dragoman_repeat(Step *step) {
    repetition = (Repetition){step ? advance_and_ask : NULL, step};
}
