/* Threads that work on one thing after the other together, without sleeping in between.
 *
 * Who comes first leads: it says what there is to do, and does as much of it as it gets to. Whoever else comes helps
 * until the leader is done. Nobody has to come, and nobody is waited for but for work that was taken.
 */
#ifndef DRAGOMAN_TEAM_H
#define DRAGOMAN_TEAM_H

#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <immintrin.h>

#define MAX_TEAM 256
#define PATIENCE 1000 /* pauses, of 1 to 45 ns; then others may have the processor */
#define NUMBER_BITS 24
#define MAX_NUMBERS (((size_t)1 << NUMBER_BITS) - 1)

typedef struct {
    atomic_int has_leader, is_over;
    /* What is to be done now: which job, how many numbers it has, and which of them is next. In one word, so that
     * nobody takes a number of another job than the one that was looked at. */
    _Atomic uint64_t ticket;
    atomic_size_t num_done; /* by helpers */
    void (*work)(void *, size_t);
    void *job;
} Team;

static inline void wait_a_moment(size_t *pauses) {
    if (++*pauses < PATIENCE) _mm_pause();
    else sched_yield();
}

/* The next number that nobody has taken; 0: there is none. */
static inline int take_number(Team *team, size_t *number) {
    uint64_t ticket = atomic_load_explicit(&team->ticket, memory_order_acquire);
    do {
        *number = ticket & MAX_NUMBERS;
        if (*number >= (ticket >> NUMBER_BITS & MAX_NUMBERS)) return 0;
    } while (!atomic_compare_exchange_weak_explicit(&team->ticket, &ticket, ticket + 1, memory_order_acq_rel,
                                                    memory_order_acquire));
    return 1;
}

/* The leader: `work` for each number below `total`, at most MAX_NUMBERS. */
static inline void share_work(Team *team, size_t total, void (*work)(void *, size_t), void *job) {
    uint64_t last = atomic_load_explicit(&team->ticket, memory_order_relaxed) >> 2 * NUMBER_BITS;
    size_t number, num_own = 0;
    team->work = work;
    team->job = job;
    atomic_store_explicit(&team->num_done, 0, memory_order_relaxed);
    atomic_store_explicit(&team->ticket, (last + 1) << 2 * NUMBER_BITS | (uint64_t)total << NUMBER_BITS,
                          memory_order_release);
    for (; take_number(team, &number); num_own++) work(job, number);
    for (size_t pauses = 0; atomic_load_explicit(&team->num_done, memory_order_acquire) + num_own < total;)
        wait_a_moment(&pauses);
}

static inline void help_team(Team *team) {
    size_t number, pauses = 0;
    while (!atomic_load_explicit(&team->is_over, memory_order_acquire)) {
        if (!take_number(team, &number)) {
            wait_a_moment(&pauses);
            continue;
        }
        team->work(team->job, number);
        atomic_fetch_add_explicit(&team->num_done, 1, memory_order_release);
        pauses = 0;
    }
}
#endif
