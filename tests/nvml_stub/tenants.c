/* Part of stub.c: who is on a GPU, what each uses of it, and the MIG instances it is cut into. */

/* The instance that a handle stands for; NULL: it is a GPU's, or void. */
static mig_instance *instance_of(void *handle) {
    mig_instance *m = handle;
    return m >= cfg.instances && m < cfg.instances + cfg.instance_count ? m : NULL;
}

/* Defines an entry point about a GPU `g` or one of its instances `m` (then `g` is its parent). */
#define TENANT_CALL(name, parameters, ...)                    \
    int name(void *handle, parameters) {                      \
        i64 start = call_begin(NULL);                         \
        mig_instance *m = instance_of(handle);                \
        gpu *g = m ? m->parent : handle;                      \
        if (g >= cfg.gpus && g < cfg.gpus + MAX_GPUS)         \
            __atomic_fetch_add(&stats->gpu_calls[g - cfg.gpus], 1, __ATOMIC_RELAXED); \
        int ret = checked(g);                                 \
        if (ret == OK && m && g->mig <= 0) ret = BAD_ARGUMENT; \
        if (ret == OK) { __VA_ARGS__ }                        \
        return call_end(start, ret);                          \
    }

TENANT_CALL(nvmlDeviceGetUUID, ARGS(char *out, u32 size), snprintf(out, size, "%s", m ? m->uuid : g->uuid);)

/* ── MIG ─────────────────────────────────────────────────────────────────────────────────────── */

typedef struct { /* nvmlDeviceAttributes_t */
    u32 multiprocessors, copy_engines, decoders, encoders, jpeg, ofa, gpu_slices, compute_slices;
    u64 memory_mib;
} attributes;

GPU_CALL(nvmlDeviceGetMaxMigDeviceCount, ARGS(u32 *out), *out = g->mig > 0 ? g->slices : 0;)

GPU_CALL(nvmlDeviceGetMigDeviceHandleByIndex, ARGS(u32 index, mig_instance **out),
    ret = NOT_FOUND;
    for (int i = 0; g->mig > 0 && i < cfg.instance_count; i++)
        if (cfg.instances[i].parent == g && !index--) { *out = &cfg.instances[i]; ret = OK; break; })

TENANT_CALL(nvmlDeviceGetGpuInstanceId, ARGS(u32 *out), if (m) *out = m->id; else ret = NOT_SUPPORTED;)

TENANT_CALL(nvmlDeviceGetAttributes_v2, ARGS(attributes *out),
    if (!m) ret = NOT_SUPPORTED;
    else {
        memset(out, 0, sizeof *out);
        out->gpu_slices = out->compute_slices = m->slices;
    })

/* ── processes ───────────────────────────────────────────────────────────────────────────────── */

static u32 append(process_info *out, u32 room, u32 n, const i64 *pids, i64 count, u32 id) {
    for (i64 i = 0; i < count; i++, n++)
        if (n < room) out[n] = (process_info){pids[i], 1 << 20, id, id == ~0u ? ~0u : 0};
    return n;
}

/* Of an instance its own, of a GPU with MIG those of all its instances. */
TENANT_CALL(nvmlDeviceGetComputeRunningProcesses_v3, ARGS(u32 *count, process_info *out),
    u32 room = out ? *count : 0;
    u32 n = 0;
    if (m) n = append(out, room, n, m->pids, m->pid_count, m->id);
    else if (g->mig <= 0) n = append(out, room, n, g->pids, g->pid_count, ~0u);
    else for (int i = 0; i < cfg.instance_count; i++)
        if (cfg.instances[i].parent == g)
            n = append(out, room, n, cfg.instances[i].pids, cfg.instances[i].pid_count, cfg.instances[i].id);
    *count = n;
    if (!m && g->process_error) ret = g->process_error;
    else if (room < n) ret = TOO_SMALL;)

TENANT_CALL(nvmlDeviceGetGraphicsRunningProcesses_v3, ARGS(u32 *count, process_info *out),
    (void)out; *count = 0; if (g->process_error) ret = g->process_error;)

/* One row for each process that used the GPU since then: its own use, or an equal part of the
 * GPU's; never told with MIG. */
GPU_CALL(nvmlDeviceGetProcessUtilization, ARGS(process_use *out, u32 *count, u64 last_seen_us),
    u64 stamp = (cfg.t0_ns + since_t0() / UTILIZATION_NS * UTILIZATION_NS) / 1000;
    u32 room = out ? *count : 0;
    u32 n = 0;
    for (int i = 0; i < g->pid_count && g->utilization >= 0; i++) {
        i64 sm = g->sm[i] >= 0 ? g->sm[i] : (g->utilization + i) / g->pid_count;
        if (sm && n < room) out[n] = (process_use){g->pids[i], stamp, sm, 0, 0, 0};
        n += !!sm;
    }
    *count = n;
    if (g->use_error) ret = g->use_error;
    else if (g->utilization < 0 || g->mig > 0) ret = NOT_SUPPORTED;
    else if (!n || stamp <= last_seen_us) ret = NOT_FOUND;
    else if (room < n) ret = TOO_SMALL;)
