#include "net/certificate_authority.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ctime>
#include <optional>

#include "base/log.h"
#include "base/sys.h"

namespace hutch::net {

namespace {

constexpr long kDay = 86'400, kAuthorityDays = 3653, kRenewDays = 30;
constexpr long kBackdated = 300;  // clocks differ
constexpr long kLeafRest = 3600;  // no connection gets one that ends sooner
constexpr size_t kMaxLeaves = 256;
constexpr size_t kMaxPemBytes = 64 << 10;
constexpr size_t kMaxCommonName = 64;  // RFC 5280, ub-common-name

Openssl<EVP_PKEY> new_key() {
  return made(EVP_EC_gen("P-256"), "EVP_EC_gen");
}

void add_extension(X509& certificate, X509& issuer, int kind, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, &issuer, &certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, kind, value);
  if (extension == nullptr) throw Error(Errc::internal, "X509V3_EXT_conf_nid: " + openssl_reason());
  const int added = X509_add_ext(&certificate, extension, -1);
  X509_EXTENSION_free(extension);
  check_openssl(added, "X509_add_ext");
}

/// All but extensions, issuer and signature. A serial number of 128 random bits is never given twice.
Openssl<X509> new_certificate(EVP_PKEY& key, const std::string& common_name, long backdated, long seconds) {
  Openssl<X509> certificate = made(X509_new(), "X509_new");
  X509* const raw = certificate.get();
  check_openssl(X509_set_version(raw, X509_VERSION_3), "X509_set_version");
  unsigned char serial[16];
  check_openssl(RAND_bytes(serial, sizeof serial), "RAND_bytes");
  serial[0] = static_cast<unsigned char>((serial[0] & 0x7f) | 0x40);  // positive, and of one length
  BIGNUM* const number = BN_bin2bn(serial, sizeof serial, nullptr);
  const bool set = number != nullptr && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(raw)) != nullptr;
  BN_free(number);
  check_openssl(set ? 1 : 0, "BN_to_ASN1_INTEGER");
  X509_gmtime_adj(X509_getm_notBefore(raw), -backdated);
  X509_gmtime_adj(X509_getm_notAfter(raw), seconds);
  check_openssl(X509_set_pubkey(raw, &key), "X509_set_pubkey");
  check_openssl(
      X509_NAME_add_entry_by_txt(X509_get_subject_name(raw), "CN", MBSTRING_ASC,
                                 reinterpret_cast<const unsigned char*>(common_name.c_str()), -1, -1, 0),
      "X509_NAME_add_entry_by_txt");
  return certificate;
}

void sign_with(X509& certificate, EVP_PKEY& key) {
  if (X509_sign(&certificate, &key, EVP_sha256()) <= 0)
    throw Error(Errc::internal, "X509_sign: " + openssl_reason());
}

TlsIdentity new_authority() {
  TlsIdentity out;
  out.key = new_key();
  out.certificate = new_certificate(*out.key, fmt::format("hutch sandboxes {}", sys::random_hex(4)), kDay,
                                    kAuthorityDays * kDay);
  X509& own = *out.certificate;
  check_openssl(X509_set_issuer_name(&own, X509_get_subject_name(&own)), "X509_set_issuer_name");
  add_extension(own, own, NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
  add_extension(own, own, NID_key_usage, "critical,keyCertSign");
  add_extension(own, own, NID_ext_key_usage, "serverAuth");
  add_extension(own, own, NID_subject_key_identifier, "hash");
  add_extension(own, own, NID_authority_key_identifier, "keyid:always");
  sign_with(own, *out.key);
  return out;
}

template <class Write>
std::string pem_of(Write write) {
  // Of a key too: its memory is wiped when it is freed.
  const Openssl<BIO> out = made(BIO_new(BIO_s_secmem()), "BIO_new");
  check_openssl(write(out.get()), "PEM_write_bio");
  char* text = nullptr;
  const long bytes = BIO_get_mem_data(out.get(), &text);
  return std::string(text, static_cast<size_t>(bytes));
}

std::string certificate_pem_of(X509& certificate) {
  return pem_of([&](BIO* out) { return PEM_write_bio_X509(out, &certificate); });
}

/// Written to the disk: an authority that lost its key in a power cut would be one that nobody can use.
void write_synced(const std::string& path, const std::string& text, mode_t mode) {
  ::unlink(path.c_str());  // of a server that died here, with whatever mode
  const UniqueFd fd = sys::open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode);
  sys::write_all(fd.get(), text);
  if (::fsync(fd.get()) != 0) throw sys_error(errno, "fsync", path);
}

struct Paths {
  explicit Paths(const std::string& data_folder)
      : folder(data_folder + "/ca"), key(folder + "/key.pem"), certificate(folder + "/cert.pem") {}
  std::string folder, key, certificate;
};

/// The certificate comes last and at once: where it is, all is.
void write_authority(const Paths& paths, const TlsIdentity& authority) {
  std::string key = pem_of([&](BIO* out) {
    return PEM_write_bio_PrivateKey(out, authority.key.get(), nullptr, nullptr, 0, nullptr, nullptr);
  });
  ::unlink(paths.certificate.c_str());
  write_synced(paths.key, key, 0600);
  ::explicit_bzero(key.data(), key.size());
  const std::string temporary = paths.certificate + ".new";
  write_synced(temporary, certificate_pem_of(*authority.certificate), 0644);
  if (::rename(temporary.c_str(), paths.certificate.c_str()) != 0)
    throw sys_error(errno, "rename", paths.certificate);
}

Openssl<BIO> bytes_of(const std::string& text) {
  return made(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())), "BIO_new_mem_buf");
}

/// Empty when there is none, or one that is no longer good for anything.
std::optional<TlsIdentity> read_authority(const Paths& paths) {
  if (!sys::exists(paths.certificate)) return std::nullopt;
  const std::string certificate = sys::read_file(paths.certificate, kMaxPemBytes);
  std::string key = sys::read_file(paths.key, kMaxPemBytes);
  TlsIdentity out;
  out.certificate.reset(PEM_read_bio_X509(bytes_of(certificate).get(), nullptr, nullptr, nullptr));
  out.key.reset(PEM_read_bio_PrivateKey(bytes_of(key).get(), nullptr, nullptr, nullptr));
  ::explicit_bzero(key.data(), key.size());
  std::time_t soon = std::time(nullptr) + kRenewDays * kDay;
  if (out.certificate && out.key && X509_check_private_key(out.certificate.get(), out.key.get()) == 1 &&
      X509_cmp_time(X509_get0_notAfter(out.certificate.get()), &soon) > 0)
    return out;
  (void)openssl_reason();
  log::warning("the certificate authority in {} is broken or ends soon: a new one is made", paths.folder);
  return std::nullopt;
}

TlsIdentity ready_authority(const std::string& data_folder) {
  const Paths paths(data_folder);
  sys::make_dirs(paths.folder, 0700);
  const UniqueFd turn = sys::lock_folder(paths.folder);
  if (auto there = read_authority(paths)) return std::move(*there);
  TlsIdentity authority = new_authority();
  write_authority(paths, authority);
  return authority;
}

}  // namespace

CertificateAuthority::CertificateAuthority(const std::string& data_folder)
    : own_(during("taking up the certificate authority of " + data_folder,
                  [&] { return ready_authority(data_folder); })),
      pem_(certificate_pem_of(*own_.certificate)) {}

TlsIdentity CertificateAuthority::sign(const std::string& host) const {
  TlsIdentity leaf;
  leaf.key = new_key();
  leaf.certificate =
      new_certificate(*leaf.key, host.size() <= kMaxCommonName ? host : "hutch", kBackdated, kDay);
  X509 &certificate = *leaf.certificate, &issuer = *own_.certificate;
  check_openssl(X509_set_issuer_name(&certificate, X509_get_subject_name(&issuer)), "X509_set_issuer_name");
  add_extension(certificate, issuer, NID_basic_constraints, "critical,CA:FALSE");
  add_extension(certificate, issuer, NID_key_usage, "critical,digitalSignature");
  add_extension(certificate, issuer, NID_ext_key_usage, "serverAuth");
  add_extension(certificate, issuer, NID_subject_key_identifier, "hash");
  add_extension(certificate, issuer, NID_authority_key_identifier, "keyid:always");
  add_extension(certificate, issuer, NID_subject_alt_name, ("DNS:" + host).c_str());
  sign_with(certificate, *own_.key);
  return leaf;
}

std::shared_ptr<const TlsIdentity> CertificateAuthority::identity_for(const std::string& host) {
  // The text of an extension has commas and colons of its own.
  if (host.empty() || host.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789.-_") != host.npos)
    throw Error(Errc::invalid_argument, fmt::format("no certificate for '{}': no name of a host", host));
  const int64_t now = std::time(nullptr);
  if (const auto it = leaves_.find(host); it != leaves_.end()) {
    if (it->second.until > now) return it->second.identity;
    by_age_.erase(it->second.age);
    leaves_.erase(it);
  }
  if (leaves_.size() >= kMaxLeaves) {
    leaves_.erase(by_age_.front());
    by_age_.pop_front();
  }
  auto identity = std::make_shared<const TlsIdentity>(sign(host));
  leaves_[host] = {identity, now + kDay - kLeafRest, by_age_.insert(by_age_.end(), host)};
  return identity;
}

}  // namespace hutch::net
