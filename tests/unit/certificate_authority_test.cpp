#include "net/certificate_authority.h"

#include <doctest/doctest.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <set>
#include <thread>
#include <vector>

#include "streams.h"
#include "support.h"

using namespace hutch;
using net::CertificateAuthority;

namespace {

mode_t mode_of(const std::string& path) {
  struct stat st {};
  REQUIRE(::stat(path.c_str(), &st) == 0);
  return st.st_mode & 07777;
}

}  // namespace

TEST_SUITE("certificate authority") {
  TEST_CASE("it is made once and taken up afterwards, its key for its owner alone") {
    test::ScratchFolder home;
    const std::string first = CertificateAuthority(home.path()).certificate_pem();
    CHECK(CertificateAuthority(home.path()).certificate_pem() == first);
    CHECK(sys::read_file(home.path() + "/ca/cert.pem") == first);
    CHECK(mode_of(home.path() + "/ca/key.pem") == 0600);
    CHECK(mode_of(home.path() + "/ca") == 0700);
    CHECK_FALSE(test::contains(first, "PRIVATE"));
  }

  TEST_CASE("servers that start at once have the same one") {
    test::ScratchFolder home;
    std::vector<std::string> seen(8);
    {
      std::vector<std::jthread> servers;
      for (std::string& out : seen)
        servers.emplace_back([&] { out = CertificateAuthority(home.path()).certificate_pem(); });
    }
    CHECK(std::set(seen.begin(), seen.end()).size() == 1);
  }

  TEST_CASE("what a server that was killed left half done is made again") {
    test::ScratchFolder home;
    const std::string folder = home.path() + "/ca";
    sys::make_dirs(folder);
    SUBCASE("a key, or half of one, without a certificate") {
      sys::write_file(folder + "/key.pem", "-----BEGIN PRIV", 0644);
    }
    SUBCASE("a certificate under its temporary name") {
      sys::write_file(folder + "/key.pem", "", 0600);
      sys::write_file(folder + "/cert.pem.new", "-----BEGIN CERTIF");
    }
    SUBCASE("a certificate that is not the key's") {
      test::ScratchFolder other;
      CertificateAuthority{other.path()};
      CertificateAuthority{home.path()};
      sys::write_file(folder + "/cert.pem", sys::read_file(other.path() + "/ca/cert.pem"));
    }
    const std::string made = CertificateAuthority(home.path()).certificate_pem();
    CHECK(CertificateAuthority(home.path()).certificate_pem() == made);
    CHECK(mode_of(folder + "/key.pem") == 0600);
    CHECK_FALSE(sys::exists(folder + "/cert.pem.new"));
  }

  TEST_CASE("killed at any point it leaves one that is whole, or none") {
    test::ScratchFolder home;
    for (int round = 0; round < 40; ++round) {
      sys::remove_tree(home.path() + "/ca");
      const pid_t child = ::fork();
      if (child == 0) {
        CertificateAuthority{home.path()};
        ::_exit(0);
      }
      ::usleep(static_cast<useconds_t>(round * 100));
      ::kill(child, SIGKILL);
      ::waitpid(child, nullptr, 0);
      const bool there = sys::exists(home.path() + "/ca/cert.pem");
      const std::string found = there ? sys::read_file(home.path() + "/ca/cert.pem") : "";
      const std::string now = CertificateAuthority(home.path()).certificate_pem();
      if (there) CHECK(now == found);
    }
  }

  TEST_CASE("it can sign servers, and no further authority") {
    test::ScratchFolder home;
    CertificateAuthority authority(home.path());
    const auto leaf = authority.identity_for("api.example.org");
    X509* const certificate = leaf->certificate.get();
    CHECK(X509_check_host(certificate, "api.example.org", 0, 0, nullptr) == 1);
    CHECK(X509_check_host(certificate, "example.org", 0, 0, nullptr) == 0);
    CHECK(X509_check_ca(certificate) == 0);
    CHECK((X509_get_extended_key_usage(certificate) == XKU_SSL_SERVER));
    const auto file = net::made(BIO_new_file((home.path() + "/ca/cert.pem").c_str(), "r"), "BIO_new_file");
    const net::Openssl<X509> own(PEM_read_bio_X509(file.get(), nullptr, nullptr, nullptr));
    CHECK(X509_get_pathlen(own.get()) == 0);
    CHECK((X509_get_key_usage(own.get()) == KU_KEY_CERT_SIGN));
  }

  TEST_CASE("a host's certificate is for a day, begun some minutes ago, and given again") {
    test::ScratchFolder home;
    CertificateAuthority authority(home.path());
    const auto leaf = authority.identity_for("a.test");
    int days = 0, seconds = 0;
    REQUIRE(ASN1_TIME_diff(&days, &seconds, X509_get0_notBefore(leaf->certificate.get()),
                           X509_get0_notAfter(leaf->certificate.get())) == 1);
    CHECK(days == 1);
    CHECK(seconds == 300);
    CHECK(authority.identity_for("a.test") == leaf);
  }

  TEST_CASE("no more than some hundred of them are kept, the latest") {
    test::ScratchFolder home;
    CertificateAuthority authority(home.path());
    const std::weak_ptr<const net::TlsIdentity> first = authority.identity_for("first.test");
    for (int i = 0; i < 255; ++i) (void)authority.identity_for("h" + std::to_string(i) + ".test");
    CHECK_FALSE(first.expired());
    (void)authority.identity_for("last.test");
    CHECK(first.expired());
  }

  TEST_CASE("a name that is more than a name is refused") {
    test::ScratchFolder home;
    CertificateAuthority authority(home.path());
    for (const std::string name : {"", "a.test,DNS:b.test", "a b", "A.test", "a\n.test"})
      CHECK_CONTAINS(test::error_of([&] { (void)authority.identity_for(name); }), "no name of a host");
    CHECK(authority.identity_for(std::string(60, 'a') + "." + std::string(60, 'b') + ".test") != nullptr);
  }

  TEST_CASE("a data folder that cannot be written to is an error that names it") {
    CHECK_CONTAINS(test::error_of([] { CertificateAuthority("/proc/nowhere"); }), "/proc/nowhere");
  }
}
