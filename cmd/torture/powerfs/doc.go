// Package powerfs is a file system that loses what was not synced: the disk
// under the broker when the torture program cuts the power. It lives in the
// memory of the process that mounts it.
//
//	process ──► kernel (FUSE) ──► Disk: as processes see it │ as a crash leaves it
//	                                    files   data        │ stable + pending writes
//	                                    names   kids        │ kept   + pending changes
//
// # What is on stable storage
//
//   - The content of a file: what it was at its last fsync or fdatasync. Each
//     write and each change of size since then is pending.
//   - The names in a directory: what they were at the last fsync of that
//     directory. Each create, rename and unlink since then is pending; the fsync
//     of a file does not make its name durable.
//
// A rename between two directories is one change of both, and becomes durable
// with either. Changes of one directory become durable in their order: the
// journal that assumption 3 of package wal asks for. Writes have no order.
//
// # A cut
//
// [Disk.Cut], or an operation that [Disk.Arm] waits for, stops the disk: from
// then on every operation that changes something hangs, and fails with EIO once
// [Disk.Release] is called, which the owner does when the process has been sent
// its SIGKILL. [Disk.Crash] then decides what of the pending changes the disk
// has kept (see [Loss]) and makes the result the content of the disk, to be
// mounted anew, so that the kernel's page cache remembers nothing.
//
// # Lies
//
// [Disk.Deafen] makes the disk acknowledge chosen syncs and do nothing. To the
// process it is as if it had forgotten to ask: a planted defect without a change
// of the program.
//
// All methods of a Disk may be called by any goroutine.
package powerfs
