/* Preloaded into the server, it ends the process with SIGKILL at one of its own system calls.
 *
 * KILL_AT="CALL FILE WHEN NTH": the NTH CALL on a path that contains FILE, and WHEN is before, half or after it.
 * KILL_ARMED=PATH: calls count from when this file exists; without it from the start. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The engine writes a mark of 24 bytes beside each batch; halves are of something longer. */
enum { SHORTEST = 32 };

static char call[16], file[64], when[8], armed[PATH_MAX];
static long nth, seen;

__attribute__((constructor)) static void read_order(void)
{
    const char *order = getenv("KILL_AT"), *path = getenv("KILL_ARMED");
    if (path)
        snprintf(armed, sizeof armed, "%s", path);
    if (order && sscanf(order, "%15s %63s %7s %ld", call, file, when, &nth) != 4)
        abort();
}

static void die(void)
{
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

static int here(const char *name, const char *path)
{
    if (strcmp(name, call) != 0 || !strstr(path, file) || (*armed && access(armed, F_OK) != 0))
        return 0;
    if (__atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST) != nth)
        return 0;
    if (strcmp(when, "before") == 0)
        die();
    return 1;
}

static int here_on(const char *name, int fd)
{
    char link[32], path[PATH_MAX];
    if (strcmp(name, call) != 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return here(name, path);
}

static size_t length_at(int is_here, size_t length)
{
    return is_here && strcmp(when, "half") == 0 ? length / 2 : length;
}

int rename(const char *from, const char *to)
{
    int is_here = here("rename", to);
    int result = syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    if (is_here)
        die();
    return result;
}

int fsync(int fd)
{
    int is_here = here_on("fsync", fd);
    int result = syscall(SYS_fsync, fd);
    if (is_here)
        die();
    return result;
}

int fdatasync(int fd)
{
    int is_here = here_on("fdatasync", fd);
    int result = syscall(SYS_fdatasync, fd);
    if (is_here)
        die();
    return result;
}

ssize_t write(int fd, const void *bytes, size_t length)
{
    int is_here = length >= SHORTEST && here_on("write", fd);
    ssize_t result = syscall(SYS_write, fd, bytes, length_at(is_here, length));
    if (is_here)
        die();
    return result;
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at)
{
    int is_here = length >= SHORTEST && here_on("pwrite64", fd);
    ssize_t result = syscall(SYS_pwrite64, fd, bytes, length_at(is_here, length), at);
    if (is_here)
        die();
    return result;
}
