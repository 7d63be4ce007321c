/* A stand-in for NVIDIA's driver, for compiling kernels on a machine without a GPU.
 *
 * It is one device of compute capability 9.0 (8.0 with STAND_IN_SM=80) that has memory and, by default, runs nothing. What a driver would
 * refuse, it refuses: a module that is not for sm_90a (sm_80) or lacks the function asked for, a launch past the device's limits, a copy outside of its memory.
 * Memory is reserved and never touched, so that a model larger than the machine's memory can be planned and "run": copies to
 * the device are dropped, copies from it are zeros.
 *
 * With STAND_IN_RUNS=1 copies are made and kernels run, those that compiler.c compiled for the processor (threads.c). Each launch is
 * finished when it returns.
 *
 * STAND_IN_OUT names a folder: kernels.tsv there gets a line for each module (function, bytes of PTX, its file), and the PTX
 * itself is kept as NUMBER.ptx; launches.txt gets a line for each launch, the name of its
 * function. Only the functions that CubeCL asks for through cudarc are here.
 */
#include "threads.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define API __attribute__((visibility("default")))

typedef int CUresult;
enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, INVALID_CONTEXT = 201, INVALID_PTX = 218,
       NOT_FOUND = 500, NO_BINARY = 209, LAUNCH_FAILED = 719, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901 };

enum { MAX_THREADS = 1024, GRID_X = 2147483647, GRID_YZ = 65535, BLOCK_XY = 1024, BLOCK_Z = 64, STATIC_SHARED = 49152,
       SHARED_90 = 232448, SHARED_80 = 166912, PROCESSORS = 132, WARP = 32 };
/* An H200's. */
static const size_t MEMORY = 141ull << 30;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Where something was refused is said once on standard error: the library above keeps only the number. */
static CUresult refuse(CUresult code, const char *what) {
    fprintf(stderr, "stand-in driver: %s\n", what);
    return code;
}

/* Whether kernels run and copies are made. */
static int runs(void) {
    const char *asked = getenv("STAND_IN_RUNS");
    return asked && !strcmp(asked, "1");
}

/* A recording: what is launched while it is open becomes a node and is not run. What waits, allocates or loads then ends it, as
 * the driver has it for recordings of the whole process. */

enum node { NODE_KERNEL = 0, NODE_ALLOC = 10, NODE_FREE = 11 };
struct graph { enum node *nodes; size_t count, room; };
static struct graph *open_graph;
static int invalidated;

static int recording(void) { return open_graph != NULL; }

static CUresult forbid(const char *what) {
    if (!recording()) return SUCCESS;
    invalidated = 1;
    return refuse(CAPTURE_UNSUPPORTED, what);
}

static CUresult node(enum node kind) {
    struct graph *to = open_graph;
    if (to->count == to->room) {
        to->room = to->room ? 2 * to->room : 1024;
        enum node *more = realloc(to->nodes, to->room * sizeof *more);
        if (!more) return OUT_OF_MEMORY;
        to->nodes = more;
    }
    to->nodes[to->count++] = kind;
    return SUCCESS;
}

/* Errors. */

API CUresult cuGetErrorName(CUresult error, const char **name) {
    *name = error == SUCCESS ? "CUDA_SUCCESS" : error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR_STAND_IN";
    return SUCCESS;
}

API CUresult cuGetErrorString(CUresult error, const char **text) {
    *text = error == SUCCESS ? "no error" : "refused by the stand-in driver";
    return SUCCESS;
}

/* The device. */

API CUresult cuInit(unsigned flags) { return flags == 0 ? SUCCESS : INVALID_VALUE; }

API CUresult cuDriverGetVersion(int *version) { *version = 13000; return SUCCESS; }

/* Whether it is an A100's kind. */
static int ampere(void) {
    const char *asked = getenv("STAND_IN_SM");
    return asked && !strcmp(asked, "80");
}

API CUresult cuDeviceGetCount(int *count) { *count = 1; return SUCCESS; }

API CUresult cuDeviceGet(int *device, int index) {
    if (index != 0) return INVALID_DEVICE;
    *device = 0;
    return SUCCESS;
}

API CUresult cuDeviceGetName(char *name, int length, int device) {
    (void)device;
    snprintf(name, (size_t)length, "stand-in for %s, which runs %s", ampere() ? "sm_80" : "sm_90a", runs() ? "on the processor" : "nothing");
    return SUCCESS;
}

API CUresult cuDeviceTotalMem_v2(size_t *bytes, int device) { (void)device; *bytes = MEMORY; return SUCCESS; }

API CUresult cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    switch (attribute) {
    case 1: *value = MAX_THREADS; break;
    case 2: case 3: *value = BLOCK_XY; break;
    case 4: *value = BLOCK_Z; break;
    case 5: *value = GRID_X; break;
    case 6: case 7: *value = GRID_YZ; break;
    case 8: *value = STATIC_SHARED; break;
    case 10: *value = WARP; break;
    case 16: *value = PROCESSORS; break;
    case 75: *value = ampere() ? 8 : 9; break;
    case 76: *value = 0; break;
    case 97: *value = ampere() ? SHARED_80 : SHARED_90; break;
    case 115: *value = 1; break; /* memory pools */
    default: *value = 0;
    }
    return SUCCESS;
}

API CUresult cuDeviceGetUuid_v2(unsigned char *uuid, int device) { (void)device; memset(uuid, 0, 16); return SUCCESS; }
API CUresult cuDeviceCanAccessPeer(int *can, int from, int to) { (void)from; (void)to; *can = 0; return SUCCESS; }

/* Its context: one, and it is nobody's business what a handle points to. */

static int handles[4];
static void *const CONTEXT = &handles[0], *const STREAM = &handles[1], *const EVENT = &handles[2], *const POOL = &handles[3];
static _Thread_local void *current;

API CUresult cuDevicePrimaryCtxRetain(void **context, int device) { (void)device; *context = CONTEXT; return SUCCESS; }
API CUresult cuDevicePrimaryCtxRelease_v2(int device) { (void)device; return SUCCESS; }
API CUresult cuCtxSetCurrent(void *context) { current = context; return SUCCESS; }
API CUresult cuCtxGetCurrent(void **context) { *context = current; return SUCCESS; }
API CUresult cuCtxSynchronize(void) { return current ? forbid("a wait for the context while recording") : INVALID_CONTEXT; }
API CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest) { *least = 0; *greatest = -5; return SUCCESS; }

API CUresult cuStreamCreate(void **stream, unsigned flags) { (void)flags; *stream = STREAM; return SUCCESS; }
API CUresult cuStreamCreateWithPriority(void **stream, unsigned flags, int priority) {
    (void)priority;
    return cuStreamCreate(stream, flags);
}
API CUresult cuStreamDestroy_v2(void *stream) { (void)stream; return SUCCESS; }
API CUresult cuStreamSynchronize(void *stream) { (void)stream; return forbid("a wait for a stream while recording"); }
API CUresult cuStreamWaitEvent(void *stream, void *event, unsigned flags) {
    (void)stream; (void)event; (void)flags;
    return SUCCESS;
}
API CUresult cuEventCreate(void **event, unsigned flags) { (void)flags; *event = EVENT; return SUCCESS; }
API CUresult cuEventDestroy_v2(void *event) { (void)event; return SUCCESS; }
API CUresult cuEventRecord(void *event, void *stream) { (void)event; (void)stream; return SUCCESS; }
/* Events of all streams of the context, of which there is one. */
API CUresult cuCtxRecordEvent(void *context, void *event) {
    if (context != CONTEXT || event != EVENT) return refuse(INVALID_VALUE, "an event that is not of the context");
    return forbid("an event of the context while recording");
}
API CUresult cuCtxWaitEvent(void *context, void *event) { return cuCtxRecordEvent(context, event); }
API CUresult cuEventSynchronize(void *event) { (void)event; return forbid("a wait for an event while recording"); }
API CUresult cuEventQuery(void *event) { (void)event; return SUCCESS; }
API CUresult cuEventElapsedTime(float *ms, void *from, void *to) { (void)from; (void)to; *ms = 0; return SUCCESS; }

/* Its memory: addresses without pages behind them until somebody writes there, which nobody does. */

struct block { uintptr_t start; size_t bytes; struct block *next; };
static struct block *blocks;
static size_t reserved;

static CUresult reserve(uintptr_t *address, size_t bytes) {
    if (bytes == 0) return INVALID_VALUE;
    struct block *block = malloc(sizeof *block);
    if (!block) return OUT_OF_MEMORY;
    pthread_mutex_lock(&lock);
    int full = reserved + bytes > MEMORY;
    void *place = full ? MAP_FAILED : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (place != MAP_FAILED) {
        *block = (struct block){(uintptr_t)place, bytes, blocks};
        blocks = block;
        reserved += bytes;
        *address = (uintptr_t)place;
    }
    pthread_mutex_unlock(&lock);
    if (place == MAP_FAILED) free(block);
    return place == MAP_FAILED ? OUT_OF_MEMORY : SUCCESS;
}

API CUresult cuMemAlloc_v2(uintptr_t *address, size_t bytes) {
    CUresult said = forbid("memory is allocated while recording");
    return said == SUCCESS ? reserve(address, bytes) : said;
}

static CUresult release(uintptr_t address) {
    pthread_mutex_lock(&lock);
    struct block **at = &blocks;
    while (*at && (*at)->start != address) at = &(*at)->next;
    struct block *block = *at;
    if (block) {
        *at = block->next;
        reserved -= block->bytes;
        munmap((void *)block->start, block->bytes);
    }
    pthread_mutex_unlock(&lock);
    if (!block) return refuse(INVALID_VALUE, "memory is freed that was not given out");
    free(block);
    return SUCCESS;
}

API CUresult cuMemFree_v2(uintptr_t address) {
    CUresult said = forbid("memory is freed while recording");
    return said == SUCCESS ? release(address) : said;
}

/* Whether so many bytes from an address lie in one block. */
static int inside(uintptr_t address, size_t bytes) {
    pthread_mutex_lock(&lock);
    struct block *block = blocks;
    while (block && !(address >= block->start && address - block->start <= block->bytes &&
                      bytes <= block->bytes - (address - block->start)))
        block = block->next;
    pthread_mutex_unlock(&lock);
    return block != NULL;
}

API CUresult cuMemAllocAsync(uintptr_t *address, size_t bytes, void *stream) {
    (void)stream;
    CUresult said = recording() ? node(NODE_ALLOC) : SUCCESS;
    return said == SUCCESS ? reserve(address, bytes) : said;
}
API CUresult cuMemFreeAsync(uintptr_t address, void *stream) {
    (void)stream;
    CUresult said = recording() ? node(NODE_FREE) : SUCCESS;
    return said == SUCCESS ? release(address) : said;
}
API CUresult cuMemAllocHost_v2(void **place, size_t bytes) {
    CUresult said = forbid("memory of the host is allocated while recording");
    if (said != SUCCESS) return said;
    *place = malloc(bytes);
    return *place ? SUCCESS : OUT_OF_MEMORY;
}
API CUresult cuMemFreeHost(void *place) { free(place); return SUCCESS; }
API CUresult cuMemGetInfo_v2(size_t *unused, size_t *total) { *unused = MEMORY - reserved; *total = MEMORY; return SUCCESS; }
API CUresult cuDeviceGetDefaultMemPool(void **pool, int device) { (void)device; *pool = POOL; return SUCCESS; }
API CUresult cuMemPoolSetAttribute(void *pool, int attribute, void *value) { (void)pool; (void)attribute; (void)value; return SUCCESS; }

API CUresult cuMemcpyHtoDAsync_v2(uintptr_t to, const void *from, size_t bytes, void *stream) {
    (void)stream;
    if (!inside(to, bytes)) return refuse(INVALID_VALUE, "a copy to the device is past its memory");
    if (runs()) memcpy((void *)to, from, bytes);
    return SUCCESS;
}

API CUresult cuMemcpyDtoHAsync_v2(void *to, uintptr_t from, size_t bytes, void *stream) {
    (void)stream;
    if (!inside(from, bytes)) return refuse(INVALID_VALUE, "a copy from the device is past its memory");
    if (runs()) memcpy(to, (const void *)from, bytes);
    else memset(to, 0, bytes);
    return SUCCESS;
}

API CUresult cuMemcpyDtoDAsync_v2(uintptr_t to, uintptr_t from, size_t bytes, void *stream) {
    (void)stream;
    if (!inside(to, bytes) || !inside(from, bytes)) return refuse(INVALID_VALUE, "a copy on the device is past its memory");
    if (runs()) memmove((void *)to, (const void *)from, bytes);
    return SUCCESS;
}

/* CUDA_MEMCPY2D. */
struct copy {
    size_t from_x, from_y; int from_type; const void *from_host; uintptr_t from_device; void *from_array; size_t from_pitch;
    size_t to_x, to_y; int to_type; void *to_host; uintptr_t to_device; void *to_array; size_t to_pitch;
    size_t width, height;
};

API CUresult cuMemcpy2DAsync_v2(const struct copy *copy, void *stream) {
    (void)stream;
    const int HOST = 1;
    for (size_t row = 0; row < copy->height; row++) {
        char *to = copy->to_type == HOST ? copy->to_host : (char *)copy->to_device;
        const char *from = copy->from_type == HOST ? copy->from_host : (const char *)copy->from_device;
        to += (copy->to_y + row) * copy->to_pitch + copy->to_x;
        if (runs()) memcpy(to, from + (copy->from_y + row) * copy->from_pitch + copy->from_x, copy->width);
        else if (copy->to_type == HOST) memset(to, 0, copy->width);
    }
    return SUCCESS;
}

/* Modules and what is in them. */

struct function { char name[256]; prepare_kernel prepare; call_kernel call; int waits; };
struct module { const char *ptx; size_t bytes; int number; void *library; };

API CUresult cuModuleLoadData(void **handle, const void *image) {
    static int count;
    const char *ptx = image;
    if (forbid("a module is loaded while recording") != SUCCESS) return CAPTURE_UNSUPPORTED;
    if (!strstr(ptx, ampere() ? ".target sm_80" : ".target sm_90a")) return refuse(NO_BINARY, "a module is for another device");
    struct module *module = malloc(sizeof *module);
    if (!module) return OUT_OF_MEMORY;
    pthread_mutex_lock(&lock);
    *module = (struct module){strdup(ptx), strlen(ptx), count++, NULL};
    pthread_mutex_unlock(&lock);
    const char *path = runs() ? strstr(ptx, "// library ") : NULL;
    if (runs() && !path) return refuse(INVALID_PTX, "a module is not compiled for the processor: compiler.c is the NVRTC for STAND_IN_RUNS=1");
    if (path) {
        char name[4096];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(path + 11, "\n"), path + 11);
        module->library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
        if (!module->library) return refuse(INVALID_PTX, dlerror());
    }
    *handle = module;
    return module->ptx ? SUCCESS : OUT_OF_MEMORY;
}

API CUresult cuModuleUnload(void *module) { (void)module; return SUCCESS; }

static void keep(const struct module *module, const char *name) {
    const char *folder = getenv("STAND_IN_OUT");
    if (!folder) return;
    char path[4096];
    pthread_mutex_lock(&lock);
    snprintf(path, sizeof path, "%s/kernels.tsv", folder);
    FILE *list = fopen(path, "a");
    if (list) {
        fprintf(list, "%s\t%zu\t%d.ptx\n", name, module->bytes, module->number);
        fclose(list);
    }
    snprintf(path, sizeof path, "%s/%d.ptx", folder, module->number);
    FILE *file = fopen(path, "w");
    if (file) {
        fwrite(module->ptx, 1, module->bytes, file);
        fclose(file);
    }
    pthread_mutex_unlock(&lock);
    if (!list || !file) fprintf(stderr, "stand-in driver: nothing can be written to %s\n", folder);
}

API CUresult cuModuleGetFunction(void **handle, void *module, const char *name) {
    const struct module *from = module;
    char entry[320];
    snprintf(entry, sizeof entry, ".entry %s(", name);
    if (!strstr(from->ptx, entry)) return refuse(NOT_FOUND, "a function is not in its module");
    struct function *function = calloc(1, sizeof *function);
    if (!function) return OUT_OF_MEMORY;
    snprintf(function->name, sizeof function->name, "%s", name);
    if (from->library) {
        const int *waits = dlsym(from->library, "stand_in_waits");
        *(void **)&function->prepare = dlsym(from->library, "stand_in_prepare");
        *(void **)&function->call = dlsym(from->library, "stand_in_call");
        if (!waits || !function->prepare || !function->call) return refuse(NOT_FOUND, "a kernel's library lacks a function");
        function->waits = *waits;
    }
    keep(from, name);
    *handle = function;
    return SUCCESS;
}

API CUresult cuFuncSetAttribute(void *function, int attribute, int value) {
    (void)function;
    const int DYNAMIC_SHARED = 8;
    if (attribute == DYNAMIC_SHARED && value > (ampere() ? SHARED_80 : SHARED_90)) return refuse(INVALID_VALUE, "a kernel wants more shared memory than there is");
    return SUCCESS;
}
API CUresult cuFuncGetAttribute(int *value, int attribute, void *function) { (void)attribute; (void)function; *value = 0; return SUCCESS; }

static void launched(const char *name) {
    const char *folder = getenv("STAND_IN_OUT");
    if (!folder) return;
    char path[4096];
    snprintf(path, sizeof path, "%s/launches.txt", folder);
    pthread_mutex_lock(&lock);
    FILE *list = fopen(path, "a");
    if (list) {
        fprintf(list, "%s\n", name);
        fclose(list);
    }
    pthread_mutex_unlock(&lock);
    if (!list) fprintf(stderr, "stand-in driver: nothing can be written to %s\n", folder);
}

API CUresult cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                            unsigned shared, void *stream, void **parameters, void **extra) {
    (void)stream; (void)extra;
    if (!function || !current) return refuse(INVALID_VALUE, "a launch without a function or a context");
    int grid = gx && gy && gz && gx <= GRID_X && gy <= GRID_YZ && gz <= GRID_YZ;
    int block = bx && by && bz && bx <= BLOCK_XY && by <= BLOCK_XY && bz <= BLOCK_Z && (uint64_t)bx * by * bz <= MAX_THREADS;
    if (grid && block && shared <= (ampere() ? SHARED_80 : SHARED_90)) {
        if (recording()) return node(NODE_KERNEL);
        const struct function *kernel = function;
        launched(kernel->name);
        if (!kernel->call) return SUCCESS;
        struct size3 blocks = {gx, gy, gz}, threads = {bx, by, bz};
        pthread_mutex_lock(&lock);
        int failed = run_blocks(kernel->prepare, kernel->call, kernel->waits, blocks, threads, shared, parameters);
        pthread_mutex_unlock(&lock);
        return failed ? refuse(LAUNCH_FAILED, "threads of a block wait for one another at different places") : SUCCESS;
    }
    fprintf(stderr, "stand-in driver: %s is launched as %u x %u x %u blocks of %u x %u x %u with %u bytes shared\n",
            ((struct function *)function)->name, gx, gy, gz, bx, by, bz, shared);
    return INVALID_VALUE;
}

/* Recordings and their replays; a replay is a line of launches.txt. */

API CUresult cuStreamBeginCapture_v2(void *stream, int mode) {
    (void)stream; (void)mode;
    if (recording()) return refuse(INVALID_VALUE, "a recording begins within another");
    if (runs()) return refuse(CAPTURE_UNSUPPORTED, "launches that run are not recorded");
    invalidated = 0;
    open_graph = calloc(1, sizeof *open_graph);
    return open_graph ? SUCCESS : OUT_OF_MEMORY;
}

API CUresult cuStreamEndCapture(void *stream, void **graph) {
    (void)stream;
    if (!recording()) return refuse(INVALID_VALUE, "a recording ends that has not begun");
    *graph = invalidated ? NULL : open_graph;
    open_graph = NULL;
    return invalidated ? CAPTURE_INVALIDATED : SUCCESS;
}

API CUresult cuGraphGetNodes(void *graph, void **nodes, size_t *count) {
    struct graph *of = graph;
    for (size_t at = 0; nodes && at < *count && at < of->count; at++) nodes[at] = &of->nodes[at];
    *count = of->count;
    return SUCCESS;
}

API CUresult cuGraphNodeGetType(void *node, int *type) { *type = (int)*(enum node *)node; return SUCCESS; }

API CUresult cuGraphInstantiateWithFlags(void **runnable, void *graph, unsigned long long flags) {
    (void)flags;
    struct graph *copy = malloc(sizeof *copy);
    if (!copy) return OUT_OF_MEMORY;
    *copy = (struct graph){NULL, ((struct graph *)graph)->count, 0};
    *runnable = copy;
    return SUCCESS;
}

API CUresult cuGraphDestroy(void *graph) { free(((struct graph *)graph)->nodes); free(graph); return SUCCESS; }
API CUresult cuGraphExecDestroy(void *runnable) { free(runnable); return SUCCESS; }
API CUresult cuGraphUpload(void *runnable, void *stream) { (void)runnable; (void)stream; return SUCCESS; }

API CUresult cuGraphLaunch(void *runnable, void *stream) {
    (void)stream;
    if (recording()) return refuse(INVALID_VALUE, "a replay while recording");
    char line[64];
    snprintf(line, sizeof line, "a replay of %zu launches", ((struct graph *)runnable)->count);
    launched(line);
    return SUCCESS;
}

/* A description of a tensor for copies in the background; nothing reads it. */
API CUresult cuTensorMapEncodeTiled(void *map, int type, unsigned rank, void *address, const uint64_t *sizes,
                                    const uint64_t *strides, const uint32_t *box, const uint32_t *steps, int interleave,
                                    int swizzle, int promotion, int fill) {
    (void)type; (void)address; (void)sizes; (void)strides; (void)box; (void)steps; (void)interleave; (void)swizzle;
    (void)promotion; (void)fill;
    if (rank == 0 || rank > 5) return INVALID_VALUE;
    memset(map, 0, 128);
    return SUCCESS;
}
