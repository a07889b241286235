/* Preloaded into a node: writes down what the node writes to one directory, and when it makes it safe, in order.
 *
 * CHORDKV_TEST_DIR is the directory, CHORDKV_TEST_LOG the file. A record is kind, length of the path, length of the data,
 * offset (little endian, see `struct head`), path, data. A write is noted before it is done and a sync after: whatever
 * was acknowledged before some point of the log is made safe before it. While a file CHORDKV_TEST_FAIL is there, the
 * disk is broken: what is written or made safe is an error. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { FDS = 4096, PATH = 1024 };

struct head {
    uint8_t kind;
    uint8_t pad;
    uint16_t path;
    uint32_t data;
    uint64_t offset;
};

static char paths[FDS][PATH];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int out = -1;
static const char *dir, *fail;

static ssize_t (*real_write)(int, const void *, size_t);

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

static int ready(void) {
    static int tried;
    if (!tried) {
        tried = 1;
        real_write = real("write");
        dir = getenv("CHORDKV_TEST_DIR");
        fail = getenv("CHORDKV_TEST_FAIL");
        const char *log = getenv("CHORDKV_TEST_LOG");
        int (*real_open)(const char *, int, ...) = real("open");
        if (dir && log) out = real_open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    }
    return out >= 0;
}

/* The -shm file is memory that SQLite makes anew. */
static int ours(const char *path) {
    size_t len = strlen(path);
    return ready() && strncmp(path, dir, strlen(dir)) == 0 && len < PATH && !(len > 4 && !strcmp(path + len - 4, "-shm"));
}

static void note(char kind, const char *path, uint64_t offset, const void *data, size_t len) {
    struct head head = { (uint8_t)kind, 0, (uint16_t)strlen(path), (uint32_t)len, offset };
    size_t size = sizeof head + head.path + len, done = 0;
    char *all = malloc(size);
    if (!all) abort();
    memcpy(all, &head, sizeof head);
    memcpy(all + sizeof head, path, head.path);
    if (len) memcpy(all + sizeof head + head.path, data, len);
    pthread_mutex_lock(&lock);
    while (done < size) {
        ssize_t n = real_write(out, all + done, size - done);
        if (n <= 0) abort();
        done += (size_t)n;
    }
    pthread_mutex_unlock(&lock);
    free(all);
}

static const char *of(int fd) { return fd >= 0 && fd < FDS && paths[fd][0] && ready() ? paths[fd] : NULL; }

static int broken(int fd) {
    if (!of(fd) || !fail || access(fail, F_OK)) return 0;
    errno = EIO;
    return 1;
}

static int opened(int fd, const char *path, int flags) {
    if (fd < 0 || fd >= FDS) return fd;
    paths[fd][0] = 0;
    if (ours(path)) {
        strcpy(paths[fd], path);
        if (flags & O_CREAT) note('C', path, 0, NULL, 0);
        if (flags & O_TRUNC) note('T', path, 0, NULL, 0);
    }
    return fd;
}

#define OPEN(name)                                                              \
    int name(const char *path, int flags, ...) {                                \
        int (*next)(const char *, int, ...) = real(#name);                      \
        mode_t mode = 0;                                                        \
        if (flags & (O_CREAT | O_TMPFILE)) {                                    \
            va_list rest;                                                       \
            va_start(rest, flags);                                              \
            mode = va_arg(rest, mode_t);                                        \
            va_end(rest);                                                       \
        }                                                                       \
        return opened(next(path, flags, mode), path, flags);                    \
    }
OPEN(open)
OPEN(open64)

int close(int fd) {
    int (*next)(int) = real("close");
    if (fd >= 0 && fd < FDS) paths[fd][0] = 0;
    return next(fd);
}

#define PWRITE(name, offset_t)                                                  \
    ssize_t name(int fd, const void *data, size_t len, offset_t offset) {       \
        ssize_t (*next)(int, const void *, size_t, offset_t) = real(#name);     \
        if (broken(fd)) return -1;                                              \
        if (of(fd)) note('W', of(fd), (uint64_t)offset, data, len);             \
        return next(fd, data, len, offset);                                     \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t write(int fd, const void *data, size_t len) {
    ready();
    if (broken(fd)) return -1;
    if (of(fd)) note('W', of(fd), (uint64_t)lseek(fd, 0, SEEK_CUR), data, len);
    return real_write(fd, data, len);
}

#define TRUNCATE(name, offset_t)                                                \
    int name(int fd, offset_t len) {                                            \
        int (*next)(int, offset_t) = real(#name);                               \
        if (of(fd)) note('T', of(fd), (uint64_t)len, NULL, 0);                  \
        return next(fd, len);                                                   \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

#define SYNC(name)                                                              \
    int name(int fd) {                                                          \
        int (*next)(int) = real(#name);                                         \
        int done = broken(fd) ? -1 : next(fd);                                  \
        if (done == 0 && of(fd)) note('S', of(fd), 0, NULL, 0);                 \
        return done;                                                            \
    }
SYNC(fsync)
SYNC(fdatasync)

int unlink(const char *path) {
    int (*next)(const char *) = real("unlink");
    if (ours(path)) note('U', path, 0, NULL, 0);
    return next(path);
}
