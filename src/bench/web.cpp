#include "bench/web.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>

#include "base/sys.h"
#include "bench/machine.h"
#include "bench/measure.h"

extern "C" {
// From the files that embed.py writes.
extern const char hutch_web_server_begin[], hutch_web_server_end[];
extern const char hutch_web_client_begin[], hutch_web_client_end[];
}

namespace hutch::bench {

namespace {

constexpr auto kStartPatience = std::chrono::seconds(20);
constexpr auto kLookAgain = std::chrono::milliseconds(10);

thread_local std::array<char, 256u << 10> received;

UniqueFd tcp_socket() {
  UniqueFd out(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!out) throw sys_error(errno, "socket", "TCP");
  return out;
}

sockaddr_in loopback(uint16_t port) {
  sockaddr_in out{};
  out.sin_family = AF_INET;
  out.sin_port = htons(port);
  out.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return out;
}

bool answers(uint16_t port) {
  const sockaddr_in to = loopback(port);
  return ::connect(tcp_socket().get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0;
}

/// After a moment, in which it may.
bool has_ended(Process& process) {
  try {
    (void)process.wait(Clock::now() + kLookAgain);
    return true;
  } catch (const Error&) {
    check_interrupted();
    return false;
  }
}

size_t read_some(int socket, char* to, size_t most) {
  const ssize_t n = sys::retry_eintr([&] { return ::recv(socket, to, most, 0); });
  if (n < 0) throw sys_error(errno, "recv", "an answer to GET");
  if (n == 0) throw Error(Errc::unavailable, "the connection ended in an answer to GET");
  return static_cast<size_t>(n);
}

/// Bytes of the body that an answer's head announces.
size_t body_size(const std::string& head) {
  constexpr std::string_view kName = "content-length:";
  const char* length = ::strcasestr(head.c_str(), kName.data());
  if (!head.starts_with("HTTP/1.1 200") || length == nullptr)
    throw Error(Errc::internal, "the answer to GET is no 200 with a length: " + head.substr(0, 200));
  return std::stoull(length + kName.size());
}

}  // namespace

std::string web_server_code() {
  return {hutch_web_server_begin, hutch_web_server_end};
}

std::string web_client_code() {
  return {hutch_web_client_begin, hutch_web_client_end};
}

TcpServer::TcpServer(const ServerCommand& command, uint16_t port)
    : port_(port), stderr_(::memfd_create("stderr", MFD_CLOEXEC)) {
  // No end of a pipe tells these of our death.
  std::vector<std::string> argv{program_as_inside("setpriv"), "--pdeathsig", "KILL", "--"};
  argv.insert(argv.end(), command.argv.begin(), command.argv.end());
  process_ = Process::spawn(
      {.argv = argv, .env = command.env, .stdio = {-1, -1, stderr_.get()}, .fds = {}, .own_group = true});
  for (const auto end = Clock::now() + kStartPatience; !answers(port);)
    if (has_ended(process_) || Clock::now() > end)
      throw Error(Errc::unavailable, fmt::format("{} does not listen on port {}; its stderr ends with: {}",
                                                 command.argv.at(0), port, tail_of(stderr_)));
}

uint16_t free_port() {
  const UniqueFd socket = tcp_socket();
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof address;
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0 ||
      ::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0)
    throw sys_error(errno, "bind", "127.0.0.1");
  return ntohs(address.sin_port);
}

TcpServer start_web_server() {
  const uint16_t port = free_port();
  return {{{program_as_inside("python3"), "-c", web_server_code(), std::to_string(port)}, own_environment()},
          port};
}

WebConnection::WebConnection(uint16_t port) : port_(port), socket_(tcp_socket()) {
  const timeval patience{.tv_sec = 60, .tv_usec = 0};
  const int on = 1;
  const sockaddr_in to = loopback(port);
  ::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  ::setsockopt(socket_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0)
    throw sys_error(errno, "connect", fmt::format("127.0.0.1:{}", port));
}

void WebConnection::get(const std::string& path) {
  sys::write_all(socket_.get(), fmt::format("GET {} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n", path, port_));
  std::string got;
  size_t head = std::string::npos;
  while ((head = got.find("\r\n\r\n")) == std::string::npos)
    got.append(received.data(), read_some(socket_.get(), received.data(), received.size()));
  size_t left = body_size(got) - (got.size() - head - 4);
  while (left > 0) left -= read_some(socket_.get(), received.data(), std::min(left, received.size()));
}

}  // namespace hutch::bench
