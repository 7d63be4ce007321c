/* A stand-in for NCCL and the CUDA driver: the ranks are threads of one process, the device's memory is the host's. */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct { char internal[128]; } Id;
typedef struct { int rank, world; } Comm;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn = PTHREAD_COND_INITIALIZER;
static float *sum;
static int arrived, left;
static unsigned round_number;
static _Thread_local int in_group;

int ncclGetUniqueId(Id *id) { memset(id, 0, sizeof *id); strcpy(id->internal, "stand-in"); return 0; }

int ncclCommInitRank(void **comm, int world, Id id, int rank) {
    if (strcmp(id.internal, "stand-in") != 0) return 4;
    Comm *made = malloc(sizeof *made);
    made->rank = rank;
    made->world = world;
    *comm = made;
    return 0;
}

static int reduce(const void *from, void *to, size_t count, void *comm) {
    int world = ((Comm *)comm)->world;
    pthread_mutex_lock(&lock);
    while (left) pthread_cond_wait(&turn, &lock); /* the round before */
    if (!sum) sum = calloc(count, sizeof *sum);
    for (size_t i = 0; i < count; i++) sum[i] += ((const float *)from)[i];
    unsigned mine = round_number;
    if (++arrived == world) {
        arrived = 0;
        left = world;
        round_number++;
        pthread_cond_broadcast(&turn);
    }
    while (mine == round_number) pthread_cond_wait(&turn, &lock);
    memcpy(to, sum, count * sizeof *sum);
    if (--left == 0) {
        free(sum);
        sum = NULL;
        pthread_cond_broadcast(&turn);
    }
    pthread_mutex_unlock(&lock);
    return 0;
}

/* What is put on a stream is done when it is waited for. */
typedef struct Put { const void *from; void *to; size_t count; void *comm; struct Put *next; } Put;
typedef struct { unsigned flags; Put *first, **last; } Stream;

int ncclAllReduce(const void *from, void *to, size_t count, int type, int op, void *comm, void *stream) {
    if (type != 7 || op != 0) return 4;
    if (!stream) return reduce(from, to, count, comm);
    Stream *on = stream;
    if (on->flags != 1 || !in_group) return 4;
    Put *put = malloc(sizeof *put);
    *put = (Put){from, to, count, comm, NULL};
    *on->last = put;
    on->last = &put->next;
    return 0;
}

int ncclGroupStart(void) { in_group++; return 0; }
int ncclGroupEnd(void) { return --in_group ? 4 : 0; }
int ncclCommDestroy(void *comm) { free(comm); return 0; }
const char *ncclGetErrorString(int code) { return code == 4 ? "invalid argument" : "unknown"; }

int cuInit(int flags) { return flags; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)(uintptr_t)(device + 1); return device > 1 ? 101 : 0; }
int cuCtxSetCurrent(void *context) { return context ? 0 : 201; }
int cuMemAlloc_v2(uint64_t *memory, size_t bytes) { *memory = (uint64_t)(uintptr_t)malloc(bytes); return *memory ? 0 : 2; }
int cuMemFree_v2(uint64_t memory) { free((void *)(uintptr_t)memory); return 0; }
int cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t bytes) { memcpy((void *)(uintptr_t)to, from, bytes); return 0; }
int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t bytes) { memcpy(to, (void *)(uintptr_t)from, bytes); return 0; }
int cuCtxSynchronize(void) { return 0; }
int cuStreamCreate(void **stream, unsigned flags) {
    Stream *made = calloc(1, sizeof *made);
    made->flags = flags;
    made->last = &made->first;
    *stream = made;
    return 0;
}
int cuStreamSynchronize(void *stream) {
    Stream *on = stream;
    int code = 0;
    while (on->first) {
        Put *put = on->first;
        code |= reduce(put->from, put->to, put->count, put->comm);
        on->first = put->next;
        free(put);
    }
    on->last = &on->first;
    return code;
}
int cuStreamDestroy_v2(void *stream) { free(stream); return 0; }
