/* A libnvidia-ml.so.1 whose power is a closed form of the wall clock, so that its energy is known
 * exactly. It serves the unmodified nvidia-ml-py; structs and codes are those of NVIDIA's nvml.h.
 *
 *   NVML_STUB_CONFIG  a text file, read again whenever it is replaced: see nvml_stub.py
 *   NVML_STUB_STATS   a file to count calls and CPU time in: see struct stats
 *
 * Power of a GPU at time t since t0: hi_uw for the first on_ns of every period_ns, then lo_uw.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MAX_GPUS = 32, MAX_PIDS = 256, MAX_INSTANCES = 8, NS = 1000000000 };
enum { OK = 0, UNINITIALIZED = 1, BAD_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, LOST = 15 };
enum { TYPE_UINT = 1, TYPE_ULL = 3 };
enum { UTILIZATION_SAMPLES = 100, UTILIZATION_NS = 166666667 };

typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;
typedef __int128 i128;
typedef struct { /* nvmlFieldValue_t */
    u32 field, scope;
    i64 timestamp_us, latency_us;
    u32 type, ret;
    u64 value;
} field_value;
typedef struct { u64 timestamp_us, value; } sample;                 /* nvmlSample_t */
typedef struct { u32 pid; u64 memory; u32 gi, ci; } process_info;   /* nvmlProcessInfo_t, v2 and v3 */
typedef struct { u32 pid; u64 timestamp_us; u32 sm, memory, encoder, decoder; } process_use; /* …UtilizationSample_t */
typedef struct {                                                    /* nvmlPciInfo_t */
    char legacy[16];
    u32 domain, bus, device, device_id, subsystem_id;
    char id[32];
} pci_info;

typedef struct {
    char uuid[96], name[96];
    i64 lo_uw, hi_uw, period_ns, on_ns;
    i64 tick_ns, tick_phase_ns, zero_ns, frozen_ns, gain_ppm;
    i64 counter, average, instant, usage_average, scope;
    i64 samples, sample_period_ns, sample_window_ns;
    i64 present, error, handle_error, energy_error, latency_us, hang_ms;
    i64 limit_mw, mig, persistence, arch, device_id, bus, utilization;
    i64 pids[MAX_PIDS], sm[MAX_PIDS], pid_count, process_error, use_error, slices;
} gpu;
typedef struct { /* a MIG instance: by its handle only the calls in tenants.c find it */
    char uuid[96];
    i64 id, slices, pids[MAX_PIDS], pid_count;
    gpu *parent;
} mig_instance;

static struct {
    i64 t0_ns, init_error, error, busy;
    char driver_version[80];
    gpu gpus[MAX_GPUS];
    int count;
    mig_instance instances[MAX_GPUS * MAX_INSTANCES];
    int instance_count;
} cfg;

static struct stats { u64 calls, cpu_ns, inits, shutdowns, refcount, gpu_calls[MAX_GPUS]; } *stats, no_stats;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct stat seen;
static int refcount;

static i64 now_ns(clockid_t clock) {
    struct timespec ts;
    clock_gettime(clock, &ts);
    return (i64)ts.tv_sec * NS + ts.tv_nsec;
}

/* ── configuration ─────────────────────────────────────────────────────────────────────────── */

static void set_gpu(gpu *g, const char *key, const char *value) {
    i64 number = strtoll(value, NULL, 10);
#define NUMBER(field) if (!strcmp(key, #field)) { g->field = number; return; }
    NUMBER(lo_uw) NUMBER(hi_uw) NUMBER(period_ns) NUMBER(on_ns) NUMBER(tick_ns) NUMBER(tick_phase_ns)
    NUMBER(zero_ns) NUMBER(frozen_ns) NUMBER(gain_ppm) NUMBER(counter) NUMBER(average) NUMBER(instant)
    NUMBER(usage_average) NUMBER(scope) NUMBER(samples) NUMBER(sample_period_ns) NUMBER(sample_window_ns)
    NUMBER(present) NUMBER(error) NUMBER(handle_error) NUMBER(energy_error) NUMBER(latency_us)
    NUMBER(hang_ms) NUMBER(limit_mw) NUMBER(mig) NUMBER(persistence) NUMBER(arch) NUMBER(device_id)
    NUMBER(bus) NUMBER(process_error) NUMBER(utilization)
    NUMBER(use_error) NUMBER(slices)
    if (!strcmp(key, "uuid")) snprintf(g->uuid, sizeof g->uuid, "%s", value);
    else if (!strcmp(key, "name")) snprintf(g->name, sizeof g->name, "%s", value);
    else if (!strcmp(key, "pid") && g->pid_count < MAX_PIDS) {
        g->sm[g->pid_count] = -1;
        sscanf(value, "%lld %lld", &g->pids[g->pid_count], &g->sm[g->pid_count]);
        g->pid_count++;
    } else if (!strcmp(key, "instance") && cfg.instance_count < MAX_GPUS * MAX_INSTANCES) {
        mig_instance *m = &cfg.instances[cfg.instance_count++];
        m->parent = g;
        sscanf(value, "%lld %lld %95s", &m->id, &m->slices, m->uuid);
    } else if (!strcmp(key, "tenant") && cfg.instance_count) {
        mig_instance *m = &cfg.instances[cfg.instance_count - 1];
        if (m->pid_count < MAX_PIDS) m->pids[m->pid_count++] = number;
    }
}

/* Lines `key<TAB>value`; `gpu<TAB>` begins the next GPU, to which the following lines belong. */
static void load_config(void) {
    const char *path = getenv("NVML_STUB_CONFIG");
    struct stat st;
    if (!path || stat(path, &st)) return;
    if (st.st_ino == seen.st_ino && st.st_mtim.tv_nsec == seen.st_mtim.tv_nsec
        && st.st_mtim.tv_sec == seen.st_mtim.tv_sec) return;
    seen = st;
    FILE *file = fopen(path, "r");
    if (!file) return;
    memset(&cfg, 0, sizeof cfg);
    gpu *g = NULL;
    for (char line[256]; fgets(line, sizeof line, file);) {
        line[strcspn(line, "\n")] = 0;
        char *value = strchr(line, '\t');
        if (!value) continue;
        *value++ = 0;
        if (!strcmp(line, "gpu")) g = cfg.count < MAX_GPUS ? &cfg.gpus[cfg.count++] : g;
        else if (g) set_gpu(g, line, value);
        else if (!strcmp(line, "t0_ns")) cfg.t0_ns = strtoll(value, NULL, 10);
        else if (!strcmp(line, "init_error")) cfg.init_error = atoi(value);
        else if (!strcmp(line, "error")) cfg.error = atoi(value);
        else if (!strcmp(line, "busy")) cfg.busy = atoi(value);
        else if (!strcmp(line, "driver_version")) snprintf(cfg.driver_version, 80, "%s", value);
    }
    fclose(file);
}

static void open_stats(void) {
    const char *path = getenv("NVML_STUB_STATS");
    stats = &no_stats;
    int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644) : -1;
    if (fd < 0) return;
    if (!ftruncate(fd, sizeof *stats)) {
        void *map = mmap(NULL, sizeof *stats, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (map != MAP_FAILED) stats = map;
    }
    close(fd);
}

/* ── one call: count it, load the configuration, delay it, check it ────────────────────────────── */

static void delay(gpu *g) {
    if (g->hang_ms) usleep(g->hang_ms * 1000);
    if (!g->latency_us) return;
    if (!cfg.busy) { usleep(g->latency_us); return; }
    for (i64 end = now_ns(CLOCK_MONOTONIC) + g->latency_us * 1000; now_ns(CLOCK_MONOTONIC) < end;) ;
}

static int checked(gpu *g) {
    if (!refcount) return UNINITIALIZED;
    if (cfg.error) return cfg.error;
    if (!g) return OK;
    if (g < cfg.gpus || g >= cfg.gpus + cfg.count) return BAD_ARGUMENT;
    delay(g);
    return !g->present ? LOST : (int)g->error;
}

static i64 call_begin(gpu *g) {
    i64 start = now_ns(CLOCK_THREAD_CPUTIME_ID);
    pthread_mutex_lock(&lock);
    if (!stats) open_stats();
    load_config();
    pthread_mutex_unlock(&lock);
    __atomic_fetch_add(&stats->calls, 1, __ATOMIC_RELAXED);
    if (g >= cfg.gpus && g < cfg.gpus + MAX_GPUS)
        __atomic_fetch_add(&stats->gpu_calls[g - cfg.gpus], 1, __ATOMIC_RELAXED);
    return start;
}

static int call_end(i64 start, int ret) {
    __atomic_fetch_add(&stats->cpu_ns, now_ns(CLOCK_THREAD_CPUTIME_ID) - start, __ATOMIC_RELAXED);
    return ret;
}

/* Defines an NVML entry point about one GPU `g`; the body sets `ret`. */
#define GPU_CALL(name, parameters, ...)                       \
    int name(gpu *g, parameters) {                            \
        i64 start = call_begin(g);                            \
        int ret = checked(g);                                 \
        if (ret == OK) { __VA_ARGS__ }                        \
        return call_end(start, ret);                          \
    }
#define ARGS(...) __VA_ARGS__

/* ── physics ─────────────────────────────────────────────────────────────────────────────────── */

static i128 energy_uwns(const gpu *g, i64 t) { /* since t0, in µW·ns */
    if (g->period_ns <= 0) return (i128)g->lo_uw * t;
    i64 within = t % g->period_ns;
    i64 on = t / g->period_ns * g->on_ns + (within < g->on_ns ? within : g->on_ns);
    return (i128)g->lo_uw * t + (i128)(g->hi_uw - g->lo_uw) * on;
}

static i64 since_t0(void) { i64 t = now_ns(CLOCK_REALTIME) - cfg.t0_ns; return t > 0 ? t : 0; }

static u64 counter_mj(const gpu *g) {
    i64 t = since_t0(), zero = g->zero_ns ? g->zero_ns - cfg.t0_ns : 0;
    if (g->frozen_ns && t > g->frozen_ns - cfg.t0_ns) t = g->frozen_ns - cfg.t0_ns;
    if (g->tick_ns) t -= (t + g->tick_phase_ns) % g->tick_ns;
    if (t < zero) return 0;
    i128 uwns = (energy_uwns(g, t) - energy_uwns(g, zero)) * g->gain_ppm / 1000000;
    return (u64)(uwns / NS / 1000);
}

static u64 mean_mw(const gpu *g, i64 end, i64 window) {
    if (end < window) window = end;
    if (window <= 0) return g->lo_uw / 1000;
    return (u64)((energy_uwns(g, end) - energy_uwns(g, end - window)) / window / 1000);
}

static u64 instant_mw(const gpu *g) {
    i64 t = since_t0();
    return mean_mw(g, t - t % g->sample_period_ns, g->sample_window_ns);
}

/* ── entry points ──────────────────────────────────────────────────────────────────────────────── */

int nvmlInitWithFlags(u32 flags) {
    i64 start = call_begin(NULL);
    (void)flags;
    if (cfg.init_error) return call_end(start, cfg.init_error);
    stats->refcount = ++refcount;
    stats->inits++;
    return call_end(start, OK);
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

int nvmlShutdown(void) {
    i64 start = call_begin(NULL);
    if (!refcount) return call_end(start, UNINITIALIZED);
    stats->refcount = --refcount;
    stats->shutdowns++;
    return call_end(start, OK);
}

const char *nvmlErrorString(int code) { return code ? "stub error" : "success"; }

int nvmlSystemGetDriverVersion(char *out, u32 size) {
    i64 start = call_begin(NULL);
    int ret = checked(NULL);
    if (ret == OK) snprintf(out, size, "%s", cfg.driver_version);
    return call_end(start, ret);
}

int nvmlDeviceGetCount_v2(u32 *count) {
    i64 start = call_begin(NULL);
    int ret = checked(NULL);
    *count = 0;
    for (int i = 0; i < cfg.count; i++) *count += !!cfg.gpus[i].present;
    return call_end(start, ret);
}

static int handle_of(gpu *g, gpu **out) { *out = g; return (int)g->handle_error; }

int nvmlDeviceGetHandleByIndex_v2(u32 index, gpu **out) {
    i64 start = call_begin(NULL);
    int ret = checked(NULL);
    if (ret != OK) return call_end(start, ret);
    for (int i = 0; i < cfg.count; i++)
        if (cfg.gpus[i].present && !index--) return call_end(start, handle_of(&cfg.gpus[i], out));
    return call_end(start, BAD_ARGUMENT);
}

int nvmlDeviceGetHandleByUUID(const char *uuid, gpu **out) {
    i64 start = call_begin(NULL);
    int ret = checked(NULL);
    if (ret != OK) return call_end(start, ret);
    for (int i = 0; i < cfg.count; i++)
        if (cfg.gpus[i].present && !strcmp(cfg.gpus[i].uuid, uuid))
            return call_end(start, handle_of(&cfg.gpus[i], out));
    return call_end(start, NOT_FOUND);
}

GPU_CALL(nvmlDeviceGetName, ARGS(char *out, u32 size), snprintf(out, size, "%s", g->name);)
GPU_CALL(nvmlDeviceGetMinorNumber, ARGS(u32 *out), *out = g - cfg.gpus;)
GPU_CALL(nvmlDeviceGetArchitecture, ARGS(u32 *out), *out = g->arch;)
GPU_CALL(nvmlDeviceGetPersistenceMode, ARGS(u32 *out), *out = g->persistence;)
GPU_CALL(nvmlDeviceGetEnforcedPowerLimit, ARGS(u32 *out), *out = g->limit_mw;)
GPU_CALL(nvmlDeviceGetPowerManagementLimit, ARGS(u32 *out), *out = g->limit_mw;)
GPU_CALL(nvmlDeviceGetPowerManagementLimitConstraints, ARGS(u32 *low, u32 *high),
         *low = g->limit_mw / 4; *high = g->limit_mw;)
GPU_CALL(nvmlDeviceGetMigMode, ARGS(u32 *current, u32 *pending),
         if (g->mig < 0) ret = NOT_SUPPORTED; *current = *pending = g->mig > 0;)
GPU_CALL(nvmlDeviceGetPciInfo_v3, ARGS(pci_info *out),
         memset(out, 0, sizeof *out); out->bus = g->bus; out->device_id = g->device_id << 16 | 0x10de;
         snprintf(out->id, sizeof out->id, "00000000:%02X:00.0", out->bus);)
GPU_CALL(nvmlDeviceGetTotalEnergyConsumption, ARGS(u64 *out),
         if (g->energy_error) ret = g->energy_error; else if (!g->counter) ret = NOT_SUPPORTED;
         else *out = counter_mj(g);)
GPU_CALL(nvmlDeviceGetPowerUsage, ARGS(u32 *out),
         *out = g->usage_average ? mean_mw(g, since_t0(), NS) : instant_mw(g);)

static int read_field(const gpu *g, field_value *f) {
    f->type = TYPE_UINT;
    switch (f->field) {
    case 83: case 191:
        if (g->energy_error) return g->energy_error;
        f->type = TYPE_ULL;
        f->value = counter_mj(g);
        return g->counter ? OK : NOT_SUPPORTED;
    case 185: f->value = mean_mw(g, since_t0(), NS);
        return g->average && f->scope == (u32)g->scope ? OK : NOT_SUPPORTED;
    case 186: f->value = instant_mw(g);
        return g->instant && f->scope == (u32)g->scope ? OK : NOT_SUPPORTED;
    case 188: case 189: case 190: f->value = g->limit_mw;
        return f->scope ? NOT_SUPPORTED : OK;
    }
    return NOT_SUPPORTED;
}

GPU_CALL(nvmlDeviceGetFieldValues, ARGS(int count, field_value *fields),
    for (int i = 0; i < count; i++) {
        fields[i].timestamp_us = now_ns(CLOCK_REALTIME) / 1000;
        fields[i].ret = read_field(g, &fields[i]);
    })

/* The driver's ring of g->samples power samples, each the mean of its last window; and one of
 * utilisation, six samples a second, where that is told. */
GPU_CALL(nvmlDeviceGetSamples, ARGS(int type, u64 last_seen_us, int *value_type, u32 *count, sample *out),
    if (type == 1) {
        if (g->utilization < 0 || g->mig > 0) ret = NOT_SUPPORTED;
        else if (!out) *count = UTILIZATION_SAMPLES;
        else {
            i64 newest = since_t0() / UTILIZATION_NS, k = newest - UTILIZATION_SAMPLES + 1;
            u32 n = 0;
            for (k = k > 0 ? k : 1; k <= newest && n < *count; k++) {
                u64 stamp = (cfg.t0_ns + k * UTILIZATION_NS) / 1000;
                if (stamp > last_seen_us) out[n++] = (sample){stamp, g->utilization};
            }
            *count = n;
            *value_type = TYPE_UINT;
            if (!n) ret = NOT_FOUND;
        }
    } else if (!g->samples || type != (g->scope ? 7 : 0)) ret = NOT_SUPPORTED;
    else if (!out) *count = g->samples;
    else {
        i64 newest = since_t0() / g->sample_period_ns, k = newest - g->samples + 1;
        u32 n = 0;
        for (k = k > 0 ? k : 1; k <= newest && n < *count; k++) {
            i64 t = k * g->sample_period_ns;
            u64 stamp = (cfg.t0_ns + t) / 1000;
            if (stamp > last_seen_us) out[n++] = (sample){stamp, mean_mw(g, t, g->sample_window_ns)};
        }
        *count = n;
        *value_type = TYPE_UINT;
        if (!n) ret = NOT_FOUND;
    })

#include "tenants.c"
