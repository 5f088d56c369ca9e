// A forked child that writes memory to files: it sees the memory as it was at the fork, copy-on-write.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <span>
#include <string>
#include <system_error>
#include <vector>

#if defined(__linux__)
#include <sys/syscall.h>
#endif

namespace shoal {

/// What goes, in this order, into a file that is made new.
struct FileImage {
  std::string path;
  std::vector<std::span<const std::byte>> buffers;
};

/// The errno of a failed write; 0 when the whole buffer is written. Ends with ECANCELED where the parent is gone.
inline int write_buffer(int fd, std::span<const std::byte> buffer, pid_t parent) noexcept {
  while (!buffer.empty()) {
    if (getppid() != parent) return ECANCELED;
    const ssize_t written = write(fd, buffer.data(), buffer.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno;
    if (written == 0) return ENOSPC;
    buffer = buffer.subspan(static_cast<std::size_t>(written));
  }
  return 0;
}

/// Gives back the whole pages of a buffer: else each one that the parent changes is held twice until the child ends.
inline void drop_pages(std::span<const std::byte> buffer, std::size_t page) noexcept {
  const std::size_t skipped = (page - reinterpret_cast<std::uintptr_t>(buffer.data()) % page) % page;
  if (buffer.size() < skipped + page) return;
  const std::size_t whole = (buffer.size() - skipped) / page * page;
  madvise(const_cast<std::byte*>(buffer.data()) + skipped, whole, MADV_DONTNEED);
}

/// Makes the file and writes it; the errno of what failed, or 0. `page`: its size, where pages are dropped when they
/// are written; 0 where another buffer may lie on them.
inline int write_image(const FileImage& file, pid_t parent, std::size_t page) noexcept {
  constexpr std::size_t most = std::size_t{8} << 20;
  const int fd = open(file.path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd < 0) return errno;
  for (auto rest : file.buffers) {
    while (!rest.empty()) {
      const auto part = rest.first(std::min(rest.size(), most));
      if (const int error = write_buffer(fd, part, parent)) return error;
      if (page > 0) drop_pages(part, page);
      rest = rest.subspan(part.size());
    }
  }
  return close(fd) == 0 ? 0 : errno;
}

/// Whether two of the buffers share memory, as tied weights do.
inline bool any_overlap(std::span<const FileImage> files) {
  std::vector<std::span<const std::byte>> all;
  for (const FileImage& file : files) {
    std::ranges::copy_if(file.buffers, std::back_inserter(all), [](const auto& buffer) { return !buffer.empty(); });
  }
  std::ranges::sort(all, std::less<>{}, [](const auto& buffer) { return buffer.data(); });
  const auto meet = [](const auto& a, const auto& b) { return a.data() + a.size() > b.data(); };
  return std::ranges::adjacent_find(all, meet) != all.end();
}

/// Closes every descriptor: a lock, or the far end of a pipe, must not outlive the parent here.
inline void close_all() noexcept {
#if defined(SYS_close_range)
  if (syscall(SYS_close_range, 0U, ~0U, 0U) == 0) return;
#endif
  rlimit limit{};
  const bool known = getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < rlim_t{1} << 20;
  const int end = known ? static_cast<int>(limit.rlim_cur) : 1 << 20;
  for (int fd = 0; fd < end; ++fd) close(fd);
}

/// fork without the handlers of pthread_atfork: they stop and restart other libraries' threads, and may allocate.
inline pid_t fork_bare() noexcept {
#if defined(__linux__)
  return static_cast<pid_t>(syscall(SYS_clone, static_cast<unsigned long>(SIGCHLD), nullptr, nullptr, nullptr, 0UL));
#else
  return fork();
#endif
}

/// Forks a child that writes `files` and exits with the errno of what failed, or 0; returns its process id.
/// The child makes system calls only: threads of the parent may have held any lock, so nothing in it may need one.
/// Signals stay blocked in it: Ctrl-C goes to the parent alone.
inline pid_t fork_writer(std::span<const FileImage> files) {
  const pid_t parent = getpid();
  const std::size_t page = any_overlap(files) ? 0 : static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t child = fork_bare();
  if (child == 0) {
    close_all();
    for (const FileImage& file : files) {
      if (const int error = write_image(file, parent, page)) _exit(error);
    }
    _exit(0);
  }
  const int error = errno;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (child < 0) throw std::system_error(error, std::generic_category(), "fork");
  return child;
}

}  // namespace shoal
