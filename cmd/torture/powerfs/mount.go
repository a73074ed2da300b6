package powerfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// ErrUnavailable says that this machine cannot mount a FUSE file system.
var ErrUnavailable = errors.New("powerfs: no FUSE here")

// maxWrite lets a frame arrive in one piece.
const maxWrite = 1 << 20

// A Mount is a disk that processes can use.
type Mount struct {
	dir    string
	server *fuse.Server
}

// Mount mounts the disk at an empty directory.
func (d *Disk) Mount(dir string) (*Mount, error) {
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	root := &inode{d: d, n: d.root}
	server, err := fs.Mount(dir, root, &fs.Options{
		MountOptions: fuse.MountOptions{
			DirectMount: true, // where fusermount is not needed it may not be there
			FsName:      "powerfs", Name: "powerfs", MaxWrite: maxWrite, DisableXAttrs: true,
		},
		RootStableAttr: &fs.StableAttr{Mode: syscall.S_IFDIR, Ino: d.root.ino},
	})
	if err != nil {
		return nil, fmt.Errorf("%w: mount %s: %w", ErrUnavailable, dir, err)
	}
	return &Mount{dir: dir, server: server}, nil
}

// Unmount ends the use of the disk by processes. None must have a file open.
func (m *Mount) Unmount() error {
	var err error
	for range 200 { // the kernel may still be closing what a killed process had
		if err = m.server.Unmount(); err == nil {
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return fmt.Errorf("powerfs: unmount %s: %w", m.dir, errors.Join(err, syscall.Unmount(m.dir, syscall.MNT_DETACH)))
}

// An inode is the kernel's handle of a node.
type inode struct {
	fs.Inode
	d *Disk
	n *node
}

var _ = (interface {
	fs.NodeLookuper
	fs.NodeGetattrer
	fs.NodeSetattrer
	fs.NodeOpener
	fs.NodeReader
	fs.NodeWriter
	fs.NodeFsyncer
	fs.NodeAllocater
	fs.NodeCreater
	fs.NodeMknoder
	fs.NodeMkdirer
	fs.NodeUnlinker
	fs.NodeRmdirer
	fs.NodeRenamer
	fs.NodeReaddirer
	fs.NodeStatfser
})((*inode)(nil))

func (i *inode) child(ctx context.Context, n *node, out *fuse.EntryOut) *fs.Inode {
	n.attr(&out.Attr)
	return i.NewInode(ctx, &inode{d: i.d, n: n}, fs.StableAttr{Mode: n.mode & syscall.S_IFMT, Ino: n.ino})
}

func (n *node) attr(out *fuse.Attr) {
	out.Ino, out.Mode, out.Size, out.Nlink = n.ino, n.mode, uint64(len(n.data)), 1
	out.Blocks, out.Blksize = (out.Size+Sector-1)/Sector, 4096
	out.SetTimes(nil, &n.mtime, &n.mtime)
	out.Uid, out.Gid = uint32(os.Getuid()), uint32(os.Getgid())
}

func (i *inode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	i.d.mu.Lock()
	defer i.d.mu.Unlock()
	n := i.n.kids[name]
	if n == nil {
		return nil, syscall.ENOENT
	}
	return i.child(ctx, n, out), 0
}

func (i *inode) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	i.d.mu.Lock()
	defer i.d.mu.Unlock()
	i.n.attr(&out.Attr)
	return 0
}

func (i *inode) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, ok := in.GetSize(); ok {
		if errno := i.d.resize(i.n, int64(size), false); errno != 0 {
			return errno
		}
	}
	i.d.mu.Lock()
	defer i.d.mu.Unlock()
	if mode, ok := in.GetMode(); ok {
		i.n.mode = i.n.mode&syscall.S_IFMT | mode&^syscall.S_IFMT
	}
	if at, ok := in.GetMTime(); ok {
		i.n.mtime = at
	}
	i.n.attr(&out.Attr)
	return 0
}

func (i *inode) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if flags&syscall.O_TRUNC != 0 {
		return nil, 0, i.d.resize(i.n, 0, false)
	}
	return nil, 0, 0
}

func (i *inode) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	i.d.mu.Lock()
	defer i.d.mu.Unlock()
	if off >= int64(len(i.n.data)) {
		return fuse.ReadResultData(nil), 0
	}
	return fuse.ReadResultData(dest[:copy(dest, i.n.data[off:])]), 0
}

func (i *inode) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	return uint32(len(data)), i.d.write(i.n, data, off)
}

func (i *inode) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno { return i.d.sync(i.n) }

func (i *inode) Allocate(_ context.Context, _ fs.FileHandle, off, size uint64, mode uint32) syscall.Errno {
	if mode != 0 {
		return syscall.EOPNOTSUPP
	}
	return i.d.resize(i.n, int64(off+size), true)
}

func (i *inode) Create(ctx context.Context, name string, _, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	in, errno := i.Mknod(ctx, name, syscall.S_IFREG|mode&^syscall.S_IFMT, 0, out)
	return in, nil, 0, errno
}

func (i *inode) Mknod(ctx context.Context, name string, mode, _ uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	n, errno := i.d.create(i.n, name, mode)
	if errno != 0 {
		return nil, errno
	}
	i.d.mu.Lock()
	defer i.d.mu.Unlock()
	return i.child(ctx, n, out), 0
}

func (i *inode) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return i.Mknod(ctx, name, syscall.S_IFDIR|mode&^syscall.S_IFMT, 0, out)
}

func (i *inode) Unlink(_ context.Context, name string) syscall.Errno {
	return i.d.unlink(i.n, name, false)
}

func (i *inode) Rmdir(_ context.Context, name string) syscall.Errno {
	return i.d.unlink(i.n, name, true)
}

func (i *inode) Rename(_ context.Context, name string, to fs.InodeEmbedder, toName string, flags uint32) syscall.Errno {
	const noReplace = 1 // RENAME_NOREPLACE
	if flags&^noReplace != 0 {
		return syscall.EINVAL
	}
	return i.d.move(i.n, name, to.(*inode).n, toName, flags&noReplace == 0)
}

func (i *inode) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	i.d.mu.Lock()
	defer i.d.mu.Unlock()
	var list []fuse.DirEntry
	for _, name := range sorted(i.n.kids) {
		n := i.n.kids[name]
		list = append(list, fuse.DirEntry{Name: name, Mode: n.mode, Ino: n.ino})
	}
	return fs.NewListDirStream(list), 0
}

// Statfs says that there is room: running out of it is not what this disk is for.
func (i *inode) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	const blocks = 64 << 30 / 4096
	out.Bsize, out.Frsize, out.NameLen = 4096, 4096, 255
	out.Blocks, out.Bfree, out.Bavail = blocks, blocks, blocks
	out.Files, out.Ffree = 1<<20, 1<<20
	return 0
}
