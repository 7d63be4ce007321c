/* Runs the threads of a block in turns on one thread of the processor, each on a stack of its own: one goes on until it waits for the
 * others. What a device does at once happens in a fixed order here. */
#include "threads.h"
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

enum { MOST = 1024, WARP = 32, STACK = 1 << 20 };
enum state { NEW, READY, AT_BLOCK, AT_WARP, DONE };

struct fiber {
    enum state state;
    int begun;
    struct size3 thread;
    jmp_buf place;
    ucontext_t start;
};

static struct fiber *fibers;
static unsigned current;
static jmp_buf scheduler;
static struct work work;
static unsigned long long lanes[MOST];
static call_kernel kernel;
static void **given;

/* Back to the scheduler, until it is this thread's turn again. */
static void yield(enum state state) {
    struct fiber *self = &fibers[current];
    self->state = state;
    if (_setjmp(self->place) == 0) _longjmp(scheduler, 1);
}

static void wait_for_block(void) { yield(AT_BLOCK); }
static void wait_for_warp(void) { yield(AT_WARP); }

/* A fiber runs one thread after another, of as many blocks as there are. */
static void live(void) {
    for (;;) {
        kernel(given);
        yield(DONE);
    }
}

static int make(unsigned count) {
    if (!fibers) fibers = calloc(MOST, sizeof *fibers);
    if (!fibers) return -1;
    for (unsigned i = 0; i < count; i++) {
        struct fiber *fiber = &fibers[i];
        if (fiber->start.uc_stack.ss_sp) continue;
        void *stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stack == MAP_FAILED || getcontext(&fiber->start)) return -1;
        fiber->start.uc_stack.ss_sp = stack;
        fiber->start.uc_stack.ss_size = STACK;
        makecontext(&fiber->start, live, 0);
    }
    return 0;
}

static void find(struct size3 thread, unsigned at) {
    work.thread = thread;
    work.lane = at % WARP;
    work.lanes = &lanes[at - at % WARP];
}

/* Goes on with a fiber until it waits or ends. */
static void go_on(unsigned at) {
    struct fiber *fiber = &fibers[at];
    current = at;
    find(fiber->thread, at);
    if (_setjmp(scheduler)) return;
    if (fiber->begun) _longjmp(fiber->place, 1);
    fiber->begun = 1;
    setcontext(&fiber->start);
}

/* Lets threads from..to go on that all wait in the same way, or are done; how many there are. */
static unsigned release(unsigned from, unsigned to, enum state state) {
    unsigned waiting = 0;
    for (unsigned i = from; i < to; i++) {
        if (fibers[i].state == state) waiting++;
        else if (fibers[i].state != DONE) return 0;
    }
    for (unsigned i = from; i < to; i++)
        if (fibers[i].state == state) fibers[i].state = READY;
    return waiting;
}

static int run_block(unsigned count) {
    for (;;) {
        unsigned left = 0, released = 0;
        for (unsigned i = 0; i < count; i++) {
            if (fibers[i].state == READY) go_on(i);
            left += fibers[i].state != DONE;
        }
        if (!left) return 0;
        for (unsigned i = 0; i < count; i += WARP) released += release(i, i + WARP < count ? i + WARP : count, AT_WARP);
        if (!released && !release(0, count, AT_BLOCK)) return -1;
    }
}

static struct size3 thread_at(unsigned at, struct size3 of) {
    return (struct size3){at % of.x, at / of.x % of.y, at / of.x / of.y};
}

int run_blocks(prepare_kernel prepare, call_kernel call, int waits, struct size3 blocks, struct size3 threads, unsigned shared,
               void **arguments) {
    unsigned count = threads.x * threads.y * threads.z;
    char *memory = aligned_alloc(128, (shared + 127) / 128 * 128 + 128);
    if (!memory || (waits && make(count))) return -1;
    work = (struct work){.threads = threads, .blocks = blocks, .shared = memory,
                         .wait_for_block = wait_for_block, .wait_for_warp = wait_for_warp};
    kernel = call;
    given = arguments;
    prepare(&work);
    int failed = 0;
    for (unsigned z = 0; z < blocks.z && !failed; z++)
        for (unsigned y = 0; y < blocks.y && !failed; y++)
            for (unsigned x = 0; x < blocks.x && !failed; x++) {
                work.block = (struct size3){x, y, z};
                /* What nobody wrote is no number. */
                memset(memory, 0xff, shared);
                for (unsigned i = 0; i < count; i++) {
                    if (waits) {
                        fibers[i].state = READY;
                        fibers[i].thread = thread_at(i, threads);
                        continue;
                    }
                    find(thread_at(i, threads), i);
                    call(arguments);
                }
                if (waits) failed = run_block(count);
            }
    free(memory);
    return failed;
}
