package backends

import "context"

// Store keeps the materialized state up to one log index: the key-value pairs
// and the Mark that says which index they belong to.
//
// Keys are ordered by their bytes (see [StoredKey] for keys longer than
// [MaxPlainKey]). Keys and values passed to a callback are valid until the
// callback returns; copy what must outlive it. A driver verifies the seal of
// every value it returns, so a callback never sees damaged data: the call ends
// with a *[CorruptError] instead.
//
// All methods may be called concurrently; Commits run one after another. After
// Close every method returns an error that is [ErrClosed]. After an error that
// is [ErrSyncFailed] the store is final: every later call returns that error
// until the process starts again.
type Store interface {
	// Commit applies b and replaces the mark by m in one transaction and
	// returns when both are as durable as the driver can make them. Either
	// everything is visible and durable afterwards or, whatever the error,
	// nothing of it is visible in this process; after a crash during Commit
	// the next open shows all or nothing.
	//
	// A batch is one transaction however large it is: the mark holds a hash of
	// the state, so a prefix of the batch would not match any mark. The caller
	// bounds the batch (see [Batch.Bytes]); 4 MB keep a commit near 20 ms.
	//
	// Errors: [ErrKey] or [ErrTooLarge] for a bad batch, [ErrReadOnly],
	// [ErrFull] (retry is safe and sensible once there is room), ctx.Err() if
	// ctx ended before the transaction was sealed, and ErrSyncFailed. b is not
	// changed and can be committed to another store, or again: puts and deletes
	// are absolute.
	Commit(ctx context.Context, b *Batch, m Mark) error

	// Mark returns the mark of the last Commit, and the zero Mark if there was
	// none.
	Mark(ctx context.Context) (Mark, error)

	// Get looks up all keys in one view of the store and calls fn once for
	// each, in the order of keys. val is nil if the key is not there, and not
	// nil (perhaps empty) if it is. An error from fn ends the call and is
	// returned as it is. fn must not call the store.
	Get(ctx context.Context, keys [][]byte, fn func(i int, val []byte) error) error

	// Scan calls fn for every pair whose key begins with prefix, in key order;
	// an empty prefix means all pairs. The mark is not among them. An error
	// from fn ends the scan and is returned as it is.
	//
	// A scan reads in chunks, so that it never holds back a Commit for long: fn
	// may call the store, Commit included. Without a Commit in between, the
	// scan is a snapshot. With one, a pair that is not touched is still seen
	// exactly once, and a pair that is put or deleted meanwhile may be seen
	// before or after the change.
	Scan(ctx context.Context, prefix []byte, fn func(key, val []byte) error) error

	// Close releases the store. It waits for calls that are running. A second
	// Close returns nil.
	Close() error
}
