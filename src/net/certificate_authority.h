#pragma once

#include <list>
#include <map>
#include <memory>
#include <string>

#include "net/tls.h"

namespace hutch::net {

/// The authority of a data folder, trusted by its sandboxes alone: signs as the hosts that secrets go to, so
/// that a request can be read on its way out. Its key never leaves the server; it can sign servers only, and
/// no further authority. Servers may start at once and be killed at any point: the authority is whole, or
/// absent and made again.
class CertificateAuthority {
 public:
  /// Takes up the one of the data folder, or makes it: `ca/cert.pem`, and `ca/key.pem` for the owner alone.
  explicit CertificateAuthority(const std::string& data_folder);

  const std::string& certificate_pem() const noexcept { return pem_; }
  /// Who we are for a client that wants `host`: for one day, and never on the disk.
  std::shared_ptr<const TlsIdentity> identity_for(const std::string& host);

 private:
  TlsIdentity sign(const std::string& host) const;

  struct Leaf {
    std::shared_ptr<const TlsIdentity> identity;
    int64_t until;  // when a new one is due
    std::list<std::string>::iterator age;
  };
  TlsIdentity own_;
  std::string pem_;
  std::map<std::string, Leaf> leaves_;
  std::list<std::string> by_age_;  // their names, the oldest first
};

}  // namespace hutch::net
