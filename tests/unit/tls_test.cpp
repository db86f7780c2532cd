#include "net/tls.h"

#include <doctest/doctest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <asio/ssl/error.hpp>
#include <asio/system_error.hpp>

#include "net/certificate_authority.h"
#include "streams.h"
#include "support.h"

using namespace hutch;
using test::run;

namespace {

/// A server's and a client's end, with an authority that the client trusts.
struct Connection {
  asio::io_context io;
  test::ScratchFolder home;
  test::Pair pair{io};
  net::CertificateAuthority authority{home.path()};
  net::TlsAcceptor acceptor;
  net::TlsConnector connector{home.path() + "/ca/cert.pem"};
  net::TlsStream server, client;

  /// What each side said of the handshake; empty: that it is done.
  struct Said {
    std::string server, client;
  };
  Said shake_hands(const std::string& asked, const std::string& awaited, const net::TlsIdentity& identity) {
    Said said;
    const auto told = [](std::string& text, asio::awaitable<net::TlsStream> side,
                         net::TlsStream& out) -> asio::awaitable<void> {
      try {
        out = co_await std::move(side);
      } catch (const Error& error) {
        text = error_text(error);
      }
    };
    run(io, {[&] { return told(said.server, acceptor.accept(*pair.b, awaited, identity), server); },
             [&] { return told(said.client, connector.connect(*pair.a, asked), client); }});
    return said;
  }
  void establish() {
    const Said said = shake_hands("a.test", "a.test", *authority.identity_for("a.test"));
    REQUIRE(said.client == "");
    REQUIRE(said.server == "");
  }
};

/// As `authority` would sign it, but valid from and until then (seconds from now).
net::TlsIdentity lasting(const std::string& home, const net::TlsIdentity& like, long from, long until) {
  const auto key_file = net::made(BIO_new_file((home + "/ca/key.pem").c_str(), "r"), "BIO_new_file");
  const net::Openssl<EVP_PKEY> signer(PEM_read_bio_PrivateKey(key_file.get(), nullptr, nullptr, nullptr));
  net::TlsIdentity out;
  out.certificate.reset(X509_dup(like.certificate.get()));
  EVP_PKEY_up_ref(like.key.get());
  out.key.reset(like.key.get());
  X509_gmtime_adj(X509_getm_notBefore(out.certificate.get()), from);
  X509_gmtime_adj(X509_getm_notAfter(out.certificate.get()), until);
  REQUIRE(X509_sign(out.certificate.get(), signer.get(), EVP_sha256()) > 0);
  return out;
}

}  // namespace

TEST_SUITE("tls") {
  TEST_CASE("bytes pass both ways at once, and an end is passed on while the other direction goes on") {
    Connection all;
    all.establish();
    const std::string up(3'000'000, 'u'), down(2'000'000, 'd');
    std::string got_up, got_down;
    run(all.io, {[&]() -> asio::awaitable<void> {
                   co_await all.client->write(up);
                   co_await all.client->end();
                 },
                 [&]() -> asio::awaitable<void> { got_down = co_await test::read_to_end(*all.client); },
                 [&]() -> asio::awaitable<void> {
                   got_up = co_await test::read_to_end(*all.server);
                   co_await all.server->write(down);
                   co_await all.server->end();
                 }});
    CHECK((got_up == up));
    CHECK((got_down == down));
  }

  TEST_CASE("a connection that is cut off is an error, not an end") {
    Connection all;
    all.establish();
    std::string got;
    asio::error_code said;
    run(all.io, {[&]() -> asio::awaitable<void> {
                   co_await all.server->write("half of it");
                   co_await all.pair.b->end();  // TCP's end, without TLS's
                 },
                 [&]() -> asio::awaitable<void> {
                   try {
                     for (;;) got += co_await all.client->read();
                   } catch (const asio::system_error& error) {
                     said = error.code();
                   }
                 }});
    CHECK(got == "half of it");
    CHECK(said == asio::ssl::error::stream_truncated);
  }

  TEST_CASE("bytes that are no TLS break the stream") {
    Connection all;
    all.establish();
    run(all.io, {[&]() -> asio::awaitable<void> { co_await all.pair.b->write("HTTP/1.1 400 no\r\n\r\n"); },
                 [&]() -> asio::awaitable<void> {
                   try {
                     co_await all.client->read();
                     FAIL_CHECK("nothing was thrown");
                   } catch (const asio::system_error& error) {
                     CHECK_CONTAINS(error.what(), "wrong version number");
                   }
                 }});
  }

  TEST_CASE("a client that is not TLS at all is refused, and so is a server") {
    Connection all;
    std::string said;
    run(all.io, {[&]() -> asio::awaitable<void> {
                   co_await all.pair.a->write("GET / HTTP/1.1\r\n\r\n");
                   co_await all.pair.a->end();
                 },
                 [&]() -> asio::awaitable<void> {
                   try {
                     co_await all.acceptor.accept(*all.pair.b, "a.test",
                                                  *all.authority.identity_for("a.test"));
                   } catch (const Error& error) {
                     said = error.what();
                   }
                 }});
    CHECK_CONTAINS(said, "http request");
    test::Pair other(all.io);
    run(all.io, {[&]() -> asio::awaitable<void> { co_await other.a->write("220 mail.test ESMTP\r\n"); },
                 [&]() -> asio::awaitable<void> {
                   try {
                     co_await all.connector.connect(*other.b, "mail.test");
                   } catch (const Error& error) {
                     said = error_text(error);
                   }
                 }});
    CHECK_CONTAINS(said, "wrong version number");
    CHECK_CONTAINS(said, "mail.test");
  }

  TEST_CASE("a peer that leaves during the handshake is unavailable") {
    Connection all;
    Errc code{};
    run(all.io, {[&]() -> asio::awaitable<void> {
                   all.pair.b->close();
                   co_return;
                 },
                 [&]() -> asio::awaitable<void> {
                   try {
                     co_await all.connector.connect(*all.pair.a, "a.test");
                   } catch (const Error& error) {
                     code = error.code();
                   }
                 }});
    CHECK(code == Errc::unavailable);
  }

  TEST_CASE("a client that asks for another name is refused") {
    Connection all;
    const auto said = all.shake_hands("b.test", "a.test", *all.authority.identity_for("a.test"));
    CHECK(said.server != "");
    CHECK_CONTAINS(said.client, "unrecognized name");
  }

  TEST_CASE("a client that asks for no name is refused") {
    Connection all;
    const auto said = all.shake_hands("127.0.0.1", "a.test", *all.authority.identity_for("a.test"));
    CHECK(said.server != "");
    CHECK_CONTAINS(said.client, "unrecognized name");
  }

  TEST_CASE("a certificate for another name is refused") {
    Connection all;
    const auto said = all.shake_hands("a.test", "a.test", *all.authority.identity_for("b.test"));
    CHECK_CONTAINS(said.client, "hostname mismatch");
    CHECK_CONTAINS(said.client, "a.test");
  }

  TEST_CASE("a certificate of an authority that nobody trusts is refused, with what to do") {
    Connection all;
    test::ScratchFolder elsewhere;
    net::CertificateAuthority stranger(elsewhere.path());
    const auto said = all.shake_hands("a.test", "a.test", *stranger.identity_for("a.test"));
    CHECK_CONTAINS(said.client, "unable to get local issuer certificate");
    CHECK_CONTAINS(said.client, "egress.ca_file");
    CHECK_CONTAINS(said.server, "unknown ca");
  }

  TEST_CASE("a certificate that has ended, or not begun, is refused") {
    const auto refusal = [](long from, long until) {
      Connection all;
      const auto genuine = all.authority.identity_for("a.test");
      return all.shake_hands("a.test", "a.test", lasting(all.home.path(), *genuine, from, until)).client;
    };
    CHECK_CONTAINS(refusal(-7200, -3600), "certificate has expired");
    CHECK_CONTAINS(refusal(3600, 7200), "certificate is not yet valid");
  }

  TEST_CASE("a file of authorities that is none is an error that names it") {
    test::ScratchFolder folder;
    const std::string file = folder.path() + "/ca.pem";
    sys::write_file(file, "nothing of the kind");
    CHECK_CONTAINS(test::error_of([&] { net::TlsConnector{file}; }), file);
    CHECK_CONTAINS(test::error_of([&] { net::TlsConnector{"/nowhere.pem"}; }), "/nowhere.pem");
  }
}
