/* A preloaded library that counts the I/O operations on files below a folder, and ends the process at one of them:
 *
 *     LD_PRELOAD=kill_at.so python ...     then, in the process: kill_at(folder, log, operation, moment)
 *
 * Operations are numbered from 1; 0 only counts. Each is a line of the log, "name path", where a log is given. Moments:
 * 0 before the operation, 1 in its middle (of a write: half of the bytes are written), 2 after it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { BEFORE, MIDDLE, AFTER };

static char folder[PATH_MAX];
static int armed, logged = -1, wanted, moment, seen;

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static ssize_t really_write(int fd, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    return real(fd, data, size);
}

void kill_at(const char *below, const char *log, int operation, int when) {
    snprintf(folder, sizeof folder, "%s", below);
    logged = log ? open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644) : -1;
    wanted = operation, moment = when, seen = 0, armed = 1;
}

static void end(void) { kill(getpid(), SIGKILL); }

static int is_below(const char *path) {
    size_t length = strlen(folder);
    return !strncmp(path, folder, length) && (path[length] == '/' || path[length] == 0);
}

/* Count an operation; return whether the process ends at it, or end it where the moment is before it. */
static int meets(const char *name, const char *path) {
    if (!armed || !is_below(path)) return 0;
    if (logged >= 0) {
        char line[PATH_MAX + 64];
        really_write(logged, line, (size_t)snprintf(line, sizeof line, "%s %s\n", name, path));
    }
    if (++seen != wanted) return 0;
    if (moment == BEFORE) end();
    return 1;
}

static int met(const char *name, int fd) {
    char link[64], path[PATH_MAX];
    if (!armed) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return meets(name, path);
}

static int met_at(const char *name, int at, const char *file) {
    char link[64], path[PATH_MAX + 8];
    if (!armed) return 0;
    if (file[0] == '/') return meets(name, file);
    snprintf(link, sizeof link, at == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", at);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    snprintf(path + length, sizeof path - (size_t)length, "/%s", file);
    return meets(name, path);
}

#define ENDED(call) do { __typeof__(call) value = (call); if (hit) end(); return value; } while (0)

ssize_t write(int fd, const void *data, size_t size) {
    int hit = met("write", fd);
    ENDED(really_write(fd, data, hit && moment == MIDDLE ? size / 2 : size));
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    int hit = met("write", fd);
    if (hit && moment == MIDDLE) { really_write(fd, parts[0].iov_base, parts[0].iov_len / 2); end(); }
    ENDED(real(fd, parts, count));
}

#define PWRITE(name, type) \
    ssize_t name(int fd, const void *data, size_t size, type at) { \
        REAL(ssize_t, #name, int, const void *, size_t, type); \
        int hit = met("pwrite", fd); \
        ENDED(real(fd, data, hit && moment == MIDDLE ? size / 2 : size, at)); \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define ON_DESCRIPTOR(name, shown, declared, passed, ...) \
    int name declared { REAL(int, #name, __VA_ARGS__); int hit = met(shown, fd); ENDED(real passed); }
ON_DESCRIPTOR(fsync, "fsync", (int fd), (fd), int)
ON_DESCRIPTOR(fdatasync, "fsync", (int fd), (fd), int)
ON_DESCRIPTOR(ftruncate, "truncate", (int fd, off_t size), (fd, size), int, off_t)
ON_DESCRIPTOR(ftruncate64, "truncate", (int fd, off64_t size), (fd, size), int, off64_t)

#define ON_PATH(name, shown, declared, passed, ...) \
    int name declared { REAL(int, #name, __VA_ARGS__); int hit = met_at(shown, AT_FDCWD, path); ENDED(real passed); }
ON_PATH(truncate, "truncate", (const char *path, off_t size), (path, size), const char *, off_t)
ON_PATH(truncate64, "truncate", (const char *path, off64_t size), (path, size), const char *, off64_t)
ON_PATH(unlink, "unlink", (const char *path), (path), const char *)
ON_PATH(rmdir, "rmdir", (const char *path), (path), const char *)
ON_PATH(mkdir, "mkdir", (const char *path, mode_t mode), (path, mode), const char *, mode_t)
ON_PATH(rename, "rename", (const char *path, const char *to), (path, to), const char *, const char *)

int unlinkat(int at, const char *path, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    int hit = met_at(flags & AT_REMOVEDIR ? "rmdir" : "unlink", at, path);
    ENDED(real(at, path, flags));
}
