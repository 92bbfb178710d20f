//! OCI images: registry pulls, tarball imports, images made at run time, unpacking.
