#pragma once

#include <functional>
#include <string>

#include "sandbox/disk_guard.h"
#include "sandbox/layer_store.h"
#include "sandbox/template_store.h"

namespace hutch::sandbox {

/// A template as one file, a tar archive in the pax format:
///
///     hutch-template.json   format and version, what TemplateStore has of it, and how much is in each layer
///     layers/0/root/...     the files of the lowest layer by the names of its trees, and so on
///     hutch-digests.json    sha256 of the first file and of each layer's part as it is here
///
/// Owners are those inside, from 0; a deletion is a character device 0:0, an opaque folder has the attribute
/// trusted.overlay.opaque, whatever server made the template. The digests come last, so that it is written
/// and read in one pass, through a pipe too. A process that calls these must ignore SIGPIPE.
struct TemplateArchive {
  static constexpr const char* kManifest = "hutch-template.json";
  static constexpr const char* kDigests = "hutch-digests.json";
  static constexpr int kVersion = 1;
};

/// Told now and then how many bytes of the archive, before compression, have been written or read.
using ArchiveProgress = std::function<void(uint64_t)>;

struct ExportedTemplate {
  uint64_t bytes = 0;     // of the archive before compression
  uint64_t left_out = 0;  // devices in an image
};
ExportedTemplate export_template(LayerStore& layers, const Template& exported, int out,
                                 const ArchiveProgress& progress);
/// To a file that appears, or replaces another, when it is whole and on the disk; compressed when its name
/// ends in .zst, .tzst, .gz or .tgz.
ExportedTemplate export_template_file(LayerStore& layers, const Template& exported, const std::string& path,
                                      const ArchiveProgress& progress);

struct ImportedTemplate {
  Template made;
  uint64_t bytes = 0;
  uint64_t owners_lost = 0;         // see runtime::Unpacked
  uint64_t attributes_dropped = 0;  // the same
};
/// `in`: the archive, compressed or not where it is a file. Nothing in it is trusted, and nothing of it is to
/// be seen before all of it has been read and has the digests that it says. `name`: empty = the archive's.
ImportedTemplate import_template(LayerStore& layers, const TemplateStore& templates, int in, std::string name,
                                 bool overwrite, const DiskGuard& disk, const ArchiveProgress& progress);

}  // namespace hutch::sandbox
