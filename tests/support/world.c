// Loaded into a process by LD_PRELOAD: another wall clock, and a disk that is slow to sync. What the tests want is in a
// file (OPSQ_TEST_WORLD) of two numbers that may change at any time: seconds added to the wall clock, seconds that each
// sync takes longer. Monotonic clocks are left alone, as they are when somebody sets the clock of a machine.
#define _GNU_SOURCE
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile double *told;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("OPSQ_TEST_WORLD");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(NULL, 2 * sizeof(double), PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) told = mapped;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int done = syscall(SYS_clock_gettime, clock, now);
    if (done == 0 && told && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        double whole, rest = modf(told[0], &whole);
        now->tv_sec += (time_t)whole;
        now->tv_nsec += (long)(rest * 1e9);
        if (now->tv_nsec < 0) { now->tv_nsec += 1000000000; now->tv_sec--; }
        if (now->tv_nsec >= 1000000000) { now->tv_nsec -= 1000000000; now->tv_sec++; }
    }
    return done;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec found;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &found)) return -1;
    now->tv_sec = found.tv_sec;
    now->tv_usec = found.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (now) *now = found.tv_sec;
    return found.tv_sec;
}

static void wait_for_the_disk(void) {
    double seconds = told ? told[1] : 0;
    if (seconds > 0) {
        struct timespec span = { (time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9) };
        nanosleep(&span, NULL);
    }
}

int fsync(int file) { wait_for_the_disk(); return syscall(SYS_fsync, file); }

int fdatasync(int file) { wait_for_the_disk(); return syscall(SYS_fdatasync, file); }
