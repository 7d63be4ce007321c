/* What a child made by fork() can do: fork MODEL RUNTIME THREADS ORT_LIBRARY WHEN, where ORT_LIBRARY may be "-".
 * WHEN is how the parent stands when it forks: "opened" and never run, "run", or "running" in another thread.
 * Prints a line for every child and exits with 0 when no child had to be killed and no result was another. */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <vjepa.h>

enum { FRAMES = 4, HEIGHT = 36, WIDTH = 44, CLASSES = 7, CHILDREN = 6, SIZE = FRAMES * HEIGHT * WIDTH * 3 };

/* Seconds after which a child counts as one that waits for ever. */
enum { PATIENCE = 60 };

static uint8_t pixels[SIZE];
static const char *model, *runtime, *library;
static size_t threads;
static double expected;
static atomic_int stop, rounds;

static void wait_ms(long ms) { nanosleep(&(struct timespec){0, ms * 1000000}, NULL); }

static int open_session(vjepa_session **session) { return vjepa_open(model, runtime, library, threads, session); }

/* The first class's probability; the code of the call. */
static int classify(const vjepa_session *session, double *probability) {
    vjepa_prediction found[CLASSES];
    size_t count = 0;
    int status = vjepa_classify(session, pixels, SIZE, FRAMES, HEIGHT, WIDTH, found, CLASSES, &count);
    *probability = status == VJEPA_OK ? found[0].probability : 0;
    return status;
}

static int differs(double probability) { return probability - expected > 1e-6 || expected - probability > 1e-6; }

/* Uses the session, frees it, and opens another: prints "WHO: inherited STATUS, own STATUS" and the errors. */
static int child(const char *who, vjepa_session *session) {
    double probability = 0;
    alarm(PATIENCE);
    int inherited = classify(session, &probability);
    char error[1000] = "";
    if (inherited != VJEPA_OK) snprintf(error, sizeof error, "%s", vjepa_last_error());
    else if (differs(probability)) return 1;
    vjepa_close(session);
    int own = open_session(&session);
    if (own == VJEPA_OK) own = classify(session, &probability);
    if (own == VJEPA_OK && differs(probability)) return 1;
    printf("%s: inherited %d, own %d", who, inherited, own);
    if (inherited != VJEPA_OK) printf("; %s", error);
    if (own != VJEPA_OK) printf("; %s", vjepa_last_error());
    printf("\n");
    vjepa_close(session);
    fflush(stdout);
    return 0;
}

static int ended(pid_t pid) {
    int status = 0;
    if (waitpid(pid, &status, 0) != pid) return 1;
    if (WIFSIGNALED(status)) printf("a child was killed by signal %d\n", WTERMSIG(status));
    return !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void *run_on(void *session) {
    double probability;
    while (!stop) {
        if (classify(session, &probability) != VJEPA_OK || differs(probability)) abort();
        rounds++;
    }
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 6) return 2;
    model = argv[1], runtime = argv[2], threads = strtoul(argv[3], NULL, 10);
    library = strcmp(argv[4], "-") == 0 ? NULL : argv[4];
    const char *when = argv[5];
    for (size_t i = 0; i < SIZE; i++) pixels[i] = (uint8_t)(i * 31 % 251);
    vjepa_session *session = NULL;
    int failed = 0;
    /* What it should be, from a process of its own. */
    int results[2];
    if (pipe(results) != 0) return 2;
    pid_t pid = fork();
    if (pid == 0) {
        int status = open_session(&session);
        if (status == VJEPA_OK) status = classify(session, &expected);
        if (status != VJEPA_OK) fprintf(stderr, "%s\n", vjepa_last_error());
        _exit(status != VJEPA_OK || write(results[1], &expected, sizeof expected) != sizeof expected);
    }
    if (ended(pid) || read(results[0], &expected, sizeof expected) != sizeof expected) return 2;

    if (open_session(&session) != VJEPA_OK) return 2;
    double probability = 0;
    if (strcmp(when, "opened") != 0 && (classify(session, &probability) != VJEPA_OK || differs(probability))) return 3;
    pthread_t thread;
    int running = strcmp(when, "running") == 0;
    if (running && pthread_create(&thread, NULL, run_on, session) != 0) return 2;
    while (running && rounds < 2) wait_ms(1);
    fflush(stdout);
    /* Several at once. */
    pid_t pids[CHILDREN];
    for (int i = 0; i < CHILDREN; i++) {
        if ((pids[i] = fork()) == 0) _exit(child("child", session));
        if (running) wait_ms(3);
    }
    for (int i = 0; i < CHILDREN; i++) failed |= ended(pids[i]);
    /* A child's child. */
    if ((pid = fork()) == 0) {
        alarm(2 * PATIENCE);
        int first = classify(session, &probability);
        if ((pid = fork()) == 0) _exit(child("grandchild", session));
        _exit(ended(pid) || (first == VJEPA_OK && differs(probability)));
    }
    failed |= ended(pid);
    stop = 1;
    if (running) pthread_join(thread, NULL);
    /* The parent goes on as before. */
    int after = classify(session, &probability);
    printf("parent: %d\n", after);
    failed |= after != VJEPA_OK || differs(probability);
    vjepa_close(session);
    return failed;
}
