/* How a kernel that was compiled for the processor is run: what it finds of its thread, and what it waits by. */
#ifndef STAND_IN_THREADS_H
#define STAND_IN_THREADS_H

struct size3 { unsigned x, y, z; };

/* What the thread that is running knows. */
struct work {
    struct size3 thread, block, threads, blocks;
    /* The block's shared memory. */
    char *shared;
    /* The thread's place in its warp, and a place for each lane of it. */
    unsigned lane;
    unsigned long long *lanes;
    /* Lets all other threads of the block, or of the warp, come this far. */
    void (*wait_for_block)(void);
    void (*wait_for_warp)(void);
};

/* A kernel's library: tells it where its thread is, and runs it with the arguments of a launch. */
typedef void (*prepare_kernel)(struct work *);
typedef void (*call_kernel)(void **);

#ifndef __cplusplus
/* Runs all blocks, one after the other; 0, or -1 where threads wait for one another at different places. */
int run_blocks(prepare_kernel prepare, call_kernel call, int waits, struct size3 blocks, struct size3 threads, unsigned shared,
               void **arguments);
#endif
#endif
