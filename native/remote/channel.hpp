// One end of a Unix socket whose messages come after their lengths: what src/shoal/remote/frames.py does, for calls
// that stay in native code. Knows no Python.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace shoal {

#ifdef MSG_NOSIGNAL
constexpr int quiet_send = MSG_DONTWAIT | MSG_NOSIGNAL;
#else
constexpr int quiet_send = MSG_DONTWAIT;  // Python ignores SIGPIPE
#endif

/// A message and the four bytes of its length before it.
class Framed {
 public:
  static constexpr std::size_t room = 4;

  /// Bytes of which the first `room` are the length's; `close` writes it.
  std::vector<char> bytes;

  void close() {
    const std::size_t size = bytes.size() - room;
    for (std::size_t i = 0; i < room; ++i) {
      bytes[i] = static_cast<char>(size >> (8 * i) & 0xff);
    }
  }

  [[nodiscard]] std::string_view message() const {
    return bytes.empty() ? std::string_view() : std::string_view(bytes.data() + room, bytes.size() - room);
  }
};

/// Waits for nothing. One thread at a time may use it.
class Channel {
 public:
  static constexpr std::size_t capacity = 256 << 10;
  static constexpr std::size_t most_bytes = 128 << 10;  ///< of a message: Python takes longer ones

  enum class Found { message, nothing, other };

  /// A descriptor of its own of the same socket: it may be closed elsewhere meanwhile.
  explicit Channel(int socket) : socket_(::dup(socket)), buffer_(capacity) {
    if (socket_ < 0) {
      throw std::runtime_error("the socket is closed, or there are too many open files");
    }
  }
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;
  ~Channel() { ::close(socket_); }

  [[nodiscard]] int socket() const noexcept { return socket_; }

  /// Whether the next message has come whole; `other`: the stream has ended, or the message is too long.
  [[nodiscard]] Found look() noexcept {
    while (true) {
      const std::size_t have = last_ - first_;
      if (have >= Framed::room) {
        size_ = 0;
        for (std::size_t i = 0; i < Framed::room; ++i) {
          size_ |= static_cast<std::size_t>(static_cast<std::uint8_t>(buffer_[first_ + i])) << (8 * i);
        }
        if (size_ > most_bytes) {
          return Found::other;
        }
        if (have >= Framed::room + size_) {
          return Found::message;
        }
      }
      std::memmove(buffer_.data(), buffer_.data() + first_, have);
      first_ = 0;
      last_ = have;
      const ssize_t count = ::recv(socket_, buffer_.data() + last_, capacity - last_, MSG_DONTWAIT);
      if (count > 0) {
        last_ += static_cast<std::size_t>(count);
      } else if (count < 0 && errno == EINTR) {
        continue;
      } else {
        return count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? Found::nothing : Found::other;
      }
    }
  }

  /// The message that `look` found.
  [[nodiscard]] std::string_view message() const noexcept { return {buffer_.data() + first_ + Framed::room, size_}; }

  /// It is done with.
  void pass() noexcept { first_ += Framed::room + size_; }

  /// How many of the bytes were not taken. All are, where the other side is gone: whoever receives next is told.
  [[nodiscard]] std::size_t send(std::span<const char> bytes) noexcept {
    while (!bytes.empty()) {
      const ssize_t count = ::send(socket_, bytes.data(), bytes.size(), quiet_send);
      if (count >= 0) {
        bytes = bytes.subspan(static_cast<std::size_t>(count));
      } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
        return bytes.size();
      } else if (errno != EINTR) {
        return 0;
      }
    }
    return 0;
  }

  /// What was received and not passed.
  [[nodiscard]] std::string_view unread() const noexcept { return {buffer_.data() + first_, last_ - first_}; }

  /// As though these bytes had been received, and nothing else; std::invalid_argument where there is no room for them.
  void load(std::string_view bytes) {
    if (bytes.size() > capacity) {
      throw std::invalid_argument("at most " + std::to_string(capacity) + " bytes may be loaded, not " +
                                  std::to_string(bytes.size()));
    }
    std::memcpy(buffer_.data(), bytes.data(), bytes.size());
    first_ = 0;
    last_ = bytes.size();
  }

 private:
  int socket_;
  std::vector<char> buffer_;
  std::size_t first_ = 0, last_ = 0;  ///< what of it was received and not passed
  std::size_t size_ = 0;              ///< of the message at `first_`
};

}  // namespace shoal
