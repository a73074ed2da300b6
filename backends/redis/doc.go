// Package redis keeps the state in a Redis server, beside the local backend,
// for tools that want to read it there. It is never the only copy: a server
// that was flushed, restarted without its log, or replaced by a replica that
// lags has forgotten what it acknowledged. Recovery's mirror fills it again.
//
// # The keys
//
// With the prefix p, of the URL:
//
//	key          type    holds
//	{p}:meta     hash    format, store, applied, mark, token, owner, epoch
//	{p}:keys     zset    the keys, all with score 0, in the order of their bytes
//	{p}:data     hash    key → sealed value, as in backends
//	{p}:stage:t  list    a batch on its way, if it is too large for one command
//
// The braces make all of them one slot of a cluster, since a script may touch
// one slot only.
//
// # Commits
//
// A Commit is one script, which Redis runs as a whole and writes to its log as
// a whole: it compares the meta with what this Store has seen last, applies the
// operations and writes the new meta. A batch above 4 MiB is staged in a list
// first, which expires by itself if its script never comes.
//
// The token is new with each commit. So a reply that was lost is not a question:
// the script, sent again, finds its own token and says so, and the next Commit
// asks before it does anything else. The owner says which Store works on the
// keys, the epoch how often its broker has started: an owner of an earlier epoch
// is old data, any other is another broker.
//
// What the comparison finds:
//
//	another store's id      ErrForeign
//	a newer applied index   ErrNewer
//	another owner           ErrTaken
//	nothing, or older data  ErrForgot: call Attach, and fill the store
//
// # Durability
//
// As the server is configured. A Commit does not wait for its disk.
//
// # Concurrency
//
// Everything may be called at once; commits run one after another. A scan reads
// chunks of up to 1 MiB. Nothing runs when no call does, but for the pool of
// connections of the client.
package redis
