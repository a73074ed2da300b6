package redis

import rdb "github.com/redis/go-redis/v9"

// Every script gets the three keys meta, keys and data.
//
// A commit's operations are pairs of arguments: 'P' and the key, then the value;
// 'D' and the key, then nothing. Staged ones stand in a list in the same order.

// commitScript applies a batch if the meta is as expected.
//
//	KEYS  meta, keys, data, stage
//	ARGV  token expected, owner, token new, store, applied, mark, epoch, staged,
//	      then the operations if staged is 0
//
// It returns 'ok', 'again' if the batch was applied before, or 'no'.
const commitText = `
local m = redis.call('HMGET', KEYS[1], 'token', 'owner', 'store')
if m[1] == ARGV[3] then return 'again' end
if m[1] ~= ARGV[1] or m[2] ~= ARGV[2] or m[3] ~= ARGV[4] then return 'no' end
local function apply(op, value)
  local key = string.sub(op, 2)
  if string.byte(op, 1) == 80 then
    if redis.call('HSET', KEYS[3], key, value) == 1 then redis.call('ZADD', KEYS[2], 0, key) end
  elseif redis.call('HDEL', KEYS[3], key) == 1 then
    redis.call('ZREM', KEYS[2], key)
  end
end
local staged = tonumber(ARGV[8])
if staged == 0 then
  for i = 9, #ARGV, 2 do apply(ARGV[i], ARGV[i + 1]) end
else
  if redis.call('LLEN', KEYS[4]) ~= staged then return 'stage' end
  for at = 0, staged - 1, 512 do
    local part = redis.call('LRANGE', KEYS[4], at, at + 511)
    for i = 1, #part, 2 do apply(part[i], part[i + 1]) end
  end
  redis.call('UNLINK', KEYS[4])
end
redis.call('HSET', KEYS[1], 'token', ARGV[3], 'applied', ARGV[5], 'mark', ARGV[6], 'epoch', ARGV[7])
return 'ok'
`

// attachScript takes the keys for an owner, if they belong to its store or to
// nobody. What was there without a meta is nobody's: it goes.
//
//	KEYS  meta, keys, data
//	ARGV  store (empty: whosever it is), owner, epoch, token if there is none
//
// It returns token, store, applied, mark, owner, epoch and format as they were.
const attachText = `
local m = redis.call('HMGET', KEYS[1], 'token', 'store', 'applied', 'mark', 'owner', 'epoch', 'format')
if not m[1] then
  redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3])
  redis.call('HSET', KEYS[1], 'format', '1', 'store', ARGV[1], 'token', ARGV[4], 'owner', ARGV[2], 'epoch', ARGV[3])
  return {ARGV[4], ARGV[1], false, false, ARGV[2], ARGV[3], '1'}
end
if m[7] ~= '1' or (ARGV[1] ~= '' and m[2] ~= '' and m[2] ~= ARGV[1]) then return m end
if m[2] == '' then redis.call('HSET', KEYS[1], 'store', ARGV[1]); m[2] = ARGV[1] end
redis.call('HSET', KEYS[1], 'owner', ARGV[2], 'epoch', ARGV[3])
return m
`

// scanScript reads a chunk of pairs.
//
//	KEYS  keys, data
//	ARGV  first (as ZRANGEBYLEX takes it), last, most pairs, most bytes
//
// It returns keys and values in turn.
const scanText = `
local out, bytes = {}, 0
local ks = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[1], ARGV[2], 'LIMIT', 0, ARGV[3])
for _, k in ipairs(ks) do
  local v = redis.call('HGET', KEYS[2], k)
  if not v then v = '' end
  bytes = bytes + #k + #v
  if #out > 0 and bytes > tonumber(ARGV[4]) then break end
  out[#out + 1] = k
  out[#out + 1] = v
end
return out
`

// scripts are the scripts of one Store.
type scripts struct{ commit, attach, scan *rdb.Script }

func newScripts() scripts {
	return scripts{rdb.NewScript(commitText), rdb.NewScript(attachText), rdb.NewScript(scanText)}
}
