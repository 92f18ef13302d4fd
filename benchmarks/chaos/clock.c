/* Steps the wall clock of Python processes: LD_PRELOADed, the offset (seconds, a double) lies in the file CHAOS_CLOCK.

   As a step of the machine's clock would, it moves what time() says and no wait that is under way: the monotonic clock
   stays, and deadlines on the wall clock are put back to what the kernel knows. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile double *offset;

__attribute__((constructor)) static void find_offset(void) {
    const char *path = getenv("CHAOS_CLOCK");
    if (path == NULL || strncmp(program_invocation_short_name, "python", 6) != 0) return; /* Ray's servers keep theirs */
    int file = open(path, O_RDONLY);
    if (file < 0) return;
    void *page = mmap(NULL, sizeof(double), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (page != MAP_FAILED) offset = page;
}

static void move(struct timespec *when, double seconds) {
    long whole = (long)seconds;
    when->tv_sec += whole;
    when->tv_nsec += (long)((seconds - (double)whole) * 1e9);
    if (when->tv_nsec >= 1000000000L) { when->tv_nsec -= 1000000000L; when->tv_sec += 1; }
    if (when->tv_nsec < 0) { when->tv_nsec += 1000000000L; when->tv_sec -= 1; }
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (real == NULL) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(clock, now);
    if (code == 0 && offset != NULL && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) move(now, *offset);
    return code;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec spec;
    (void)zone;
    int code = clock_gettime(CLOCK_REALTIME, &spec);
    now->tv_sec = spec.tv_sec;
    now->tv_usec = spec.tv_nsec / 1000;
    return code;
}

time_t time(time_t *out) {
    struct timespec spec;
    clock_gettime(CLOCK_REALTIME, &spec);
    if (out != NULL) *out = spec.tv_sec;
    return spec.tv_sec;
}

static const struct timespec *kernels(const struct timespec *deadline, struct timespec *own) {
    if (offset == NULL || deadline == NULL || deadline->tv_sec < 1000000000L) return deadline; /* a monotonic one */
    *own = *deadline;
    move(own, -*offset);
    return own;
}

int pthread_cond_timedwait(pthread_cond_t *restrict c, pthread_mutex_t *restrict m, const struct timespec *restrict t) {
    static int (*real)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    struct timespec own;
    if (real == NULL) *(void **)&real = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    if (real == NULL) *(void **)&real = dlsym(RTLD_NEXT, "pthread_cond_timedwait");
    return real(c, m, kernels(t, &own));
}

int sem_timedwait(sem_t *restrict s, const struct timespec *restrict t) {
    static int (*real)(sem_t *, const struct timespec *);
    struct timespec own;
    if (real == NULL) *(void **)&real = dlsym(RTLD_NEXT, "sem_timedwait");
    return real(s, kernels(t, &own));
}
