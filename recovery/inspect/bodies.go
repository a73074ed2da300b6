package inspect

import (
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/wind-c/comqtt/v3/backends"
	"github.com/wind-c/comqtt/v3/broker/core"
	"github.com/wind-c/comqtt/v3/recovery"
)

// checkBodies checks that every message of the backend's state has its body:
// the body's bytes are no part of the state hash, but their checksum is.
func (c *verifier) checkBodies() error {
	const name = "bodies"
	if c.l == nil {
		return nil
	}
	var wanted []core.StoredMessage
	c.l.machine.Messages(func(m core.StoredMessage) bool {
		wanted = append(wanted, m)
		return true
	})
	crc := crc32.MakeTable(crc32.Castagnoli)
	next, bytes, others := 0, int64(0), 0
	err := c.b.store.Scan(c.ctx, []byte{backends.TableBody}, func(key, body []byte) error {
		bytes += int64(len(key) + len(body))
		c.progress("check bodies", min(bytes, c.b.size), c.b.size)
		id, rest, ok := backends.SplitID(key)
		if !ok {
			return &backends.CorruptError{Store: c.b.path, Key: key, Offset: -1, Err: errors.New("not the key of a body")}
		}
		if id == 0 || len(rest) > 0 { // a note about bodies that went ahead of a checkpoint
			return c.ctx.Err()
		}
		if next < len(wanted) && wanted[next].ID < id {
			return c.noBody(wanted[next].ID)
		}
		if next == len(wanted) || wanted[next].ID > id {
			others++ // went ahead of a checkpoint that never was
			return c.ctx.Err()
		}
		w := &wanted[next]
		next++
		if uint32(len(body)) != w.Size || crc32.Checksum(body, crc) != w.CRC {
			return c.damagedBody(id, "the body of message %d is not the one that was stored")
		}
		return c.ctx.Err()
	})
	if err == nil && next < len(wanted) {
		err = c.noBody(wanted[next].ID)
	}
	if err != nil {
		return c.v.bad(c.ctx, name, c.b.path, c.refuse(c.b, err))
	}
	c.v.good(name, "%d messages have theirs, %d bytes; %d that nothing refers to", len(wanted), bytes, others)
	return nil
}

func (c *verifier) noBody(id uint64) error {
	return c.damagedBody(id, "the body of message %d is missing")
}

func (c *verifier) damagedBody(id uint64, what string) error {
	return &recovery.DamageError{
		File: c.b.path, What: fmt.Sprintf(what, id), Lost: fmt.Sprintf("message %d", id),
	}
}
