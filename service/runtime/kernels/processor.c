/* Which kernels this processor runs.
 *
 * Knows: instructions, what the system allows, DRAGOMAN_KERNELS. Does not know: what kernels compute.
 */
#define _DEFAULT_SOURCE
#include "kernels.h"
#include <cpuid.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ASK_FOR_REGISTERS 0x1023 /* ARCH_REQ_XCOMP_PERM */
#define AMX_REGISTERS 18         /* XFEATURE_XTILEDATA */

const Kernels *kernels;
const char *kernels_name = "none";

static int has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
           __builtin_cpu_supports("bmi2");
}

static int has_avxvnni(void) {
    unsigned a, b, c, d;
    return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && a & 1u << 4;
}

static int has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}

static int has_avx512vnni(void) { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }

/* Linux gives these registers only to processes that ask for them. */
static int has_amx(void) {
    unsigned a, b, c, d;
    if (!has_avx512vnni() || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    return d & 1u << 24 && d & 1u << 25 && !syscall(SYS_arch_prctl, ASK_FOR_REGISTERS, AMX_REGISTERS);
}

/* Those that the compiler knew: build_hook.py. */
#define KNOWN_TO_COMPILER __attribute__((weak, visibility("default")))
extern const Kernels kernels_avx2;
extern const Kernels kernels_avxvnni KNOWN_TO_COMPILER, kernels_avx512 KNOWN_TO_COMPILER;
extern const Kernels kernels_avx512vnni KNOWN_TO_COMPILER, kernels_amx KNOWN_TO_COMPILER;

static const struct {
    const char *name;
    const Kernels *kernels;
    int (*is_here)(void);
} kinds[] = {
    /* the best last */
    {"avx2", &kernels_avx2, has_avx2},
    {"avxvnni", &kernels_avxvnni, has_avxvnni},
    {"avx512", &kernels_avx512, has_avx512},
    {"avx512vnni", &kernels_avx512vnni, has_avx512vnni},
    {"amx", &kernels_amx, has_amx},
};

/* The best kind, or the one that was chosen if it is here; once, before others read it. */
void choose_kernels(void) {
    const char *chosen = getenv("DRAGOMAN_KERNELS");
    __builtin_cpu_init();
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (!kinds[i].kernels || !kinds[i].is_here()) continue;
        kernels = kinds[i].kernels;
        kernels_name = kinds[i].name;
        if (chosen && !strcmp(chosen, kinds[i].name)) return;
    }
}
