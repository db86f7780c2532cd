#pragma once

namespace hutch::sandbox {

/// Makes the unpacked files of an image, whose root is open at `root` and which nobody else has, fit to be a
/// root file system: the folders that every sandbox mounts something on, and /etc/hosts and its like. Removes
/// what an image must not have: device nodes, and attributes by which it would speak to the overlay above it.
/// The files may be hostile: nothing outside of the root is ever reached.
void prepare_image_tree(int root);

}  // namespace hutch::sandbox
