#include "bench/relays.h"

#include <map>

#include "base/sys.h"

namespace hutch::bench {

namespace {

std::string filled_in(std::string text, const std::map<std::string, std::string>& values) {
  for (const auto& [name, value] : values)
    for (size_t at = 0; (at = text.find(name, at)) != std::string::npos; at += value.size())
      text.replace(at, name.size(), value);
  return text;
}

}  // namespace

TcpServer start_relay(const Peer& peer, const std::string& folder, uint16_t target) {
  const uint16_t port = free_port();
  const std::map<std::string, std::string> values{
      {"{listen}", std::to_string(port)}, {"{target}", std::to_string(target)}, {"{folder}", folder}};
  sys::make_dirs(folder, 0755);
  if (peer.spec.contains("config"))
    sys::write_file(folder + "/config", filled_in(peer.spec.at("config"), values));
  ServerCommand command = command_of(peer.spec);
  for (auto& word : command.argv) word = filled_in(word, values);
  return {command, port};
}

}  // namespace hutch::bench
