#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "net/http_body.h"
#include "net/secret_request.h"
#include "net/upstream.h"

namespace hutch::net {

/// One client's connection, request after request.
class SecretSession {
 public:
  SecretSession(Duplex& client, const TlsConnector& connector, std::shared_ptr<const Secrets> secrets,
                std::string host, uint16_t port, Connect connect)
      : client_(client),
        connector_(connector),
        secrets_(std::move(secrets), host, port),
        host_(std::move(host)),
        port_(port),
        connect_(std::move(connect)) {}
  ~SecretSession();
  SecretSession(const SecretSession&) = delete;
  SecretSession& operator=(const SecretSession&) = delete;

  asio::awaitable<void> run();

 private:
  asio::awaitable<bool> pass_request(std::string_view head_text);
  void check_request(const RequestHead& request) const;
  void rewrite(RequestHead& request, const std::string* body) const;
  asio::awaitable<bool> send_and_answer(const RequestHead& request, const BodyFraming& framing);
  asio::awaitable<void> send_body(const BodyFraming& framing, bool& sent);
  asio::awaitable<void> answer_meanwhile(const RequestHead& request, bool& keeps, const bool& sent);
  asio::awaitable<ResponseHead> next_answer();
  asio::awaitable<bool> pass_answer(const RequestHead& request);
  void check_coding(const ResponseHead& head) const;
  asio::awaitable<void> refuse(int status, const Error& error);

  ReadAhead client_;
  const TlsConnector& connector_;
  SecretRequests secrets_;
  const std::string host_;
  const uint16_t port_;
  const Connect connect_;
  std::shared_ptr<Upstream> upstream_;
  std::optional<ReadAhead> answers_;  // of upstream_
  bool reused_ = false;               // upstream_ has answered before
  bool waiting_ = true;               // for a request
  bool answering_ = false;            // the client has the beginning of an answer
  bool carries_value_ = false;        // the request under way
};

}  // namespace hutch::net
