/* Preloaded before libc: counts every call that changes files, and does something at one of them.
 *
 * A call counts when it writes, syncs or cuts a regular file, or changes a folder. Nothing happens
 * until fault_arm. SQLite's and Python's I/O goes through these symbols.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, KILL, TEAR, FAIL_ONCE, FAIL_ON, POWER };

#define EXT4_IOC_SHUTDOWN 0x8004587d
#define NO_LOG_FLUSH 2

static atomic_long calls;
static atomic_long armed_at;
static int armed_mode = -1;
static int armed_errno;
static char mount_point[4096];

void fault_arm(long at, int mode, int error, const char *mount) {
	armed_mode = -1;
	calls = 0;
	armed_at = at;
	armed_errno = error;
	strncpy(mount_point, mount, sizeof mount_point - 1);
	armed_mode = mode;
}

long fault_calls(void) { return calls; }

static void power_loss(void) {
	int (*real_open)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
	int flag = NO_LOG_FLUSH, folder = real_open(mount_point, O_RDONLY);
	ioctl(folder, EXT4_IOC_SHUTDOWN, &flag);
}

/* Return 0: go on; 1: fail with errno; 2: write a half, then die. */
static int step(int can_tear) {
	if (armed_mode < 0) return 0;
	long now = ++calls;
	if (now < armed_at || armed_mode == COUNT) return 0;
	if (armed_mode == FAIL_ON || (armed_mode == FAIL_ONCE && now == armed_at)) {
		errno = armed_errno;
		return 1;
	}
	if (now > armed_at) return 0;
	if (armed_mode == TEAR && can_tear) return 2;
	if (armed_mode == POWER) power_loss();
	raise(SIGKILL);
	return 0;
}

static int is_file(int fd) {
	struct stat status;
	int kept = errno, found = fstat(fd, &status) == 0 &&
		(S_ISREG(status.st_mode) || S_ISDIR(status.st_mode));
	errno = kept;
	return found;
}

#define NEXT(type, name, ...) \
	static type (*real)(__VA_ARGS__); \
	if (!real) real = dlsym(RTLD_NEXT, name)

#define WRITE(half) \
	if (is_file(fd)) { \
		int what = step(1); \
		if (what == 1) return -1; \
		if (what == 2) { half; raise(SIGKILL); } \
	}

ssize_t write(int fd, const void *data, size_t size) {
	NEXT(ssize_t, "write", int, const void *, size_t);
	WRITE(real(fd, data, size / 2))
	return real(fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
	NEXT(ssize_t, "pwrite", int, const void *, size_t, off_t);
	WRITE(real(fd, data, size / 2, at))
	return real(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
	NEXT(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
	WRITE(real(fd, data, size / 2, at))
	return real(fd, data, size, at);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
	NEXT(ssize_t, "writev", int, const struct iovec *, int);
	WRITE(real(fd, parts, count / 2))
	return real(fd, parts, count);
}

#define FILE_CALL(name, arguments, ...) \
	int name arguments { \
		static int(*real) arguments; \
		if (!real) real = dlsym(RTLD_NEXT, #name); \
		if (is_file(fd) && step(0)) return -1; \
		return real(__VA_ARGS__); \
	}

FILE_CALL(fsync, (int fd), fd)
FILE_CALL(fdatasync, (int fd), fd)
FILE_CALL(ftruncate, (int fd, off_t size), fd, size)
FILE_CALL(ftruncate64, (int fd, off64_t size), fd, size)

#define FOLDER_CALL(name, arguments, ...) \
	int name arguments { \
		static int(*real) arguments; \
		if (!real) real = dlsym(RTLD_NEXT, #name); \
		if (step(0)) return -1; \
		return real(__VA_ARGS__); \
	}

FOLDER_CALL(unlink, (const char *path), path)
FOLDER_CALL(unlinkat, (int folder, const char *path, int flags), folder, path, flags)
FOLDER_CALL(rename, (const char *from, const char *to), from, to)
FOLDER_CALL(renameat, (int a, const char *from, int b, const char *to), a, from, b, to)
FOLDER_CALL(link, (const char *from, const char *to), from, to)
FOLDER_CALL(mkdir, (const char *path, mode_t mode), path, mode)
FOLDER_CALL(rmdir, (const char *path), path)

#define OPEN(name) \
	int name(const char *path, int flags, ...) { \
		NEXT(int, #name, const char *, int, ...); \
		va_list rest; \
		va_start(rest, flags); \
		mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0; \
		va_end(rest); \
		if (flags & O_CREAT && step(0)) return -1; \
		return real(path, flags, mode); \
	}

OPEN(open)
OPEN(open64)
