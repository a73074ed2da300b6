package broker

import (
	"github.com/wind-c/comqtt/v3/broker/failpoint"
	"github.com/wind-c/comqtt/v3/broker/packets"
	"github.com/wind-c/comqtt/v3/wal/record"
)

// planted breaks a publish of a durable client when the torture program asks
// for it; without the build tag "failpoints" it is false and compiled away.
// It reports whether the publish is dealt with.
func (c *conn) planted(p *packets.Publish) bool {
	if !failpoint.Enabled {
		return false
	}
	switch {
	case p.QoS == 2 && failpoint.Fault(failpoint.FaultEarlyPubrec):
		c.reply(packets.TypePubrec, p.PacketID, packets.CodeSuccess, &c.in.touched)
	case p.QoS == 2 && p.Dup && c.durable && failpoint.Fault(failpoint.FaultForgetReceipt):
		r := record.PubRel{Session: c.session, Epoch: c.epoch, PacketID: p.PacketID}
		c.in.batch.addRecord(item{}, r.AppendTo(nil))
	case p.QoS == 1 && p.PacketID%16 == 0 && failpoint.Fault(failpoint.FaultDropBeforeIndex):
		c.reply(packets.TypePuback, p.PacketID, packets.CodeSuccess, &c.in.touched)
		return true
	}
	return false
}

// plantOrder turns the order of what is sent again around.
func (s *Server) plantOrder(c *conn) {
	if failpoint.Fault(failpoint.FaultReorder) {
		w := c.sess.Out.Inflight()
		for i, j := 0, len(w)-1; i < j && w[j].Resend; i, j = i+1, j-1 {
			w[i], w[j] = w[j], w[i]
		}
	}
}
