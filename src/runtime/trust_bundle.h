#pragma once

#include <array>
#include <string>
#include <string_view>

namespace hutch::runtime {

/// Where the certificates are that programs inside trust, when there are any besides those of the root file
/// system. Not in the place of that one: what is installed inside may want to write there.
inline constexpr const char* kTrustPath = "/run/hutch/ca-bundle.crt";

/// The variables that lead programs there: OpenSSL (and with it Python, Ruby, wget2) and Go by the first;
/// curl's and git's libraries, requests and pip, Node, cargo, gRPC and the AWS tools each by their own.
inline constexpr std::array<std::string_view, 9> kTrustVariables = {
    "SSL_CERT_FILE",      "CURL_CA_BUNDLE", "GIT_SSL_CAINFO",
    "REQUESTS_CA_BUNDLE", "PIP_CERT",       "NODE_EXTRA_CA_CERTS",
    "CARGO_HTTP_CAINFO",  "AWS_CA_BUNDLE",  "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"};

/// The path of a file in `folder` with the certificates that the host trusts and `certificate` (PEM). Its
/// name follows from both: when the host's change it is another file, and sandboxes that run keep theirs.
std::string trust_bundle(const std::string& folder, const std::string& certificate);

}  // namespace hutch::runtime
