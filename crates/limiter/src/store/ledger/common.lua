-- The common call ----------------------------------------------------------------------------------------------------

-- A replica that was there a moment ago calls again, nobody waits, and what it asks for fits. Most calls are like this, and
-- here they are answered without making all the functions that the others need. Whatever is not so is found out before
-- anything is written; then this returns nothing, and the rest of the script does the whole. It may be left out: the
-- answers are the same.
local function common_call()
  if own or #missed > 0 or leaves or wants_view or their_time == 0 or #entries > 64 then return end
  local has_ask = #asks > 0
  if has_ask and asks[7 + 3 * asks[6]] then return end
  local floor, min, max, decode, call = math.floor, math.min, math.max, cmsgpack.unpack, redis.call
  local SILENT_AFTER, SHARES = 1000000, 1000000

  local got = call('HMGET', KEYS[1], 'c', 'm' .. id, 'i', 'l')
  if not got[1] or not got[2] or got[4] then return end
  local c, me, roll = { decode(got[1]) }, { decode(got[2]) }, { decode(got[3]) }
  -- Format, epoch, server, how many wait, news of limits; whether everybody knows everybody.
  if c[1] ~= 2 or c[2] ~= known_epoch or c[24] ~= server or c[26] ~= 0 or c[7] ~= known_facts then return end
  if has_ask and c[22] ~= 1 then return end
  -- Sequence, left, repeated, told for the first time.
  if sequence ~= me[1] + 1 or me[6] ~= 0 or me[14] ~= 0 or me[11] == 0 then return end
  local raw = max(server_time + c[4], 0)
  local off, now = their_time - raw, max(raw, c[3])
  if off > 100000 or off < -100000 then return end
  -- Sums are right, nothing expires, nobody pauses; it was heard of lately, is in touch, and holds what it held.
  if now >= c[17] or now >= c[23] or c[6] > now or now - me[3] > SILENT_AFTER then return end
  if now - me[4] > SILENT_AFTER or now - me[5] > SILENT_AFTER or now - me[3] > me[9] then return end
  c[3], c[5], me[7] = now, 0, off

  -- What of each ring has to be known: the epoch, the buckets that expire, that of now, and those that are corrected.
  local count, rings = #limits / 7, {}
  if #c ~= 26 + 19 * count then return end
  for i = 1, count do
    local at, limit = 8 + 19 * i, 7 * i - 6
    local width, low, size = c[at + 3], c[at + 11], c[at + 13]
    -- Name, life, width, since, ends; some charge; what it was told.
    if c[at] ~= limits[limit] or c[at + 1] ~= limits[limit + 1] or width ~= limits[limit + 2] then return end
    if c[at + 7] ~= limits[limit + 4] or c[at + 8] ~= limits[limit + 5] or c[at + 7] > me[4] then return end
    local first = max(floor(max(now - c[at + 1], 0) / width), floor(c[at + 7] / width))
    if low > c[at + 12] or first > c[at + 12] or first - low > 4 then return end
    if not me[13 + 6 * i] or me[13 + 6 * i] < 0 or me[11 + 6 * i] < 0 then return end
    c[at + 2], c[at + 4] = now, limits[limit + 3]
    local ring = { at = at, width = width, first = first, buckets = {}, n = 0, b = {}, s = {}, dirty = {}, size = size }
    for bucket = low, first - 1 do
      ring.n = ring.n + 1
      ring.buckets[ring.n] = bucket
    end
    ring.expire = ring.n
    if has_ask then
      ring.n = ring.n + 1
      ring.buckets[ring.n] = floor(now / width)
    end
    rings[i] = ring
  end
  for k = 1, #entries, 4 do
    local ring, stamp = rings[entries[k + 1]], entries[k + 2]
    if entries[k] > 2 or not ring then return end
    if stamp == 0 and entries[k] == 2 then stamp = now end
    ring.n = ring.n + 1
    ring.buckets[ring.n] = floor(min(stamp, now) / ring.width)
  end

  -- The cells are read. Those between low and top are stored, and all others are 0.
  for i = 1, count do
    local ring = rings[i]
    local b, s, at, size, n = ring.b, ring.s, ring.at, ring.size, 5
    local low, top = c[at + 11], c[at + 12]
    if ring.n > 0 then
      local ask, into, where = { 'BITFIELD_RO', KEYS[2 + i], 'GET', 'i64', '#0' }, {}, {}
      for k = 1, ring.n do
        local bucket = ring.buckets[k]
        local slot = floor(bucket / 10)
        if not b[bucket] then
          b[bucket] = 0
          if bucket >= low and bucket <= top then
            ask[n + 1], ask[n + 2], ask[n + 3], n = 'GET', 'i64', '#' .. 1 + size + bucket % (size * 10), n + 3
            into[#into + 1], where[#where + 1] = b, bucket
          end
        end
        if not s[slot] then
          s[slot] = 0
          if slot >= floor(low / 10) and slot <= floor(top / 10) then
            ask[n + 1], ask[n + 2], ask[n + 3], n = 'GET', 'i64', '#' .. 1 + slot % size, n + 3
            into[#into + 1], where[#where + 1] = s, slot
          end
        end
      end
      local values = call(unpack(ask))
      if values[1] ~= c[2] then return end
      for k = 1, #into do into[k][where[k]] = values[k + 1] end
      for k = 1, ring.expire do
        local bucket = ring.buckets[k]
        local slot = floor(bucket / 10)
        c[at + 9], s[slot], b[bucket], ring.dirty[bucket] = c[at + 9] - b[bucket], s[slot] - b[bucket], 0, slot
      end
      c[at + 11] = max(low, ring.first)
    end
  end

  -- The replica has its last answer, and holds what it says.
  local old_share, claims = max(me[10], me[12]), c[21]
  me[5], me[12], me[13] = me[4], me[10], me[11]
  me[4], me[1], me[3], me[8], me[9] = min(now, their_time), sequence, now, share_life, lease
  local all = min(shares, SHARES)
  claims = claims - old_share
  me[10] = min(floor(all / c[20]), max(all - claims, 0))
  local share = max(me[10], me[12])
  c[21], me[11] = claims + share, now
  for i = 1, count do
    local at, mine, held = rings[i].at, 6 * i, limits[7 * i]
    -- What is kept for it is its share of what was refunded since its view.
    local old_refund, refund = c[at + 10] - me[13 + mine], c[at + 10] - me[11 + mine]
    if old_refund ~= refund or old_share ~= share then
      local old_whole, whole = floor(old_refund / SHARES), floor(refund / SHARES)
      local part = c[at + 16] + (refund - whole * SHARES) * share - (old_refund - old_whole * SHARES) * old_share
      local carry = floor(part / SHARES)
      c[at + 15], c[at + 16] = c[at + 15] + whole * share - old_whole * old_share + carry, part - carry * SHARES
      c[at + 17] = c[at + 17] + share - old_share
    end
    c[at + 14] = c[at + 14] + held - me[9 + mine]
    me[9 + mine], me[12 + mine], me[13 + mine], me[14 + mine] = held, me[10 + mine], me[11 + mine], 0
  end

  -- Corrections.
  for k = 1, #entries, 4 do
    local ring, stamp, amount = rings[entries[k + 1]], entries[k + 2], entries[k + 3]
    local at, b, s = ring.at, ring.b, ring.s
    if entries[k] == 1 then
      local bucket = floor(stamp / ring.width)
      local given = min(amount, b[bucket] or 0)
      if given > 0 then
        local slot = floor(bucket / 10)
        b[bucket], s[slot], ring.dirty[bucket] = b[bucket] - given, s[slot] - given, slot
        c[at + 9], c[at + 10] = c[at + 9] - given, c[at + 10] + given
        local rate, whole = c[at + 17], floor(given / SHARES)
        local part = c[at + 16] + (given - whole * SHARES) * rate
        local carry = floor(part / SHARES)
        c[at + 15], c[at + 16] = c[at + 15] + whole * rate + carry, part - carry * SHARES
      end
    else
      local bucket = floor((stamp == 0 and now or min(stamp, now)) / ring.width)
      if amount > 0 and bucket >= ring.first then
        local slot = floor(bucket / 10)
        b[bucket], s[slot], ring.dirty[bucket] = b[bucket] + amount, s[slot] + amount, slot
        c[at + 9], c[at + 11], c[at + 12] = c[at + 9] + amount, min(c[at + 11], bucket), max(c[at + 12], bucket)
      end
    end
  end

  -- The request.
  local reply = { 0, c[2], now, c[20], me[10], 0, 0, 0, 0, 0, c[7], 0 }
  local n = 12
  if has_ask then
    for k = 7, 4 + 3 * asks[6] + 2, 3 do
      local at = rings[asks[k]].at
      local limit = c[at + 5] == 0 and c[at + 4] or min(c[at + 4], c[at + 5])
      local weight = min(asks[k + 1] + asks[k + 2], limit)
      local total = c[at + 9] + c[at + 14] + c[at + 15] + (c[at + 16] > 0 and 1 or 0)
      if weight > 0 and total + weight > limit then return end
    end
    for k = 7, 4 + 3 * asks[6] + 2, 3 do
      local ring, take, mine = rings[asks[k]], asks[k + 1], 6 * asks[k]
      local at, bucket = ring.at, floor(now / ring.width)
      if take > 0 and bucket >= ring.first then
        local slot, b, s = floor(bucket / 10), ring.b, ring.s
        b[bucket], s[slot], ring.dirty[bucket] = b[bucket] + take, s[slot] + take, slot
        c[at + 9], c[at + 11], c[at + 12] = c[at + 9] + take, min(c[at + 11], bucket), max(c[at + 12], bucket)
      end
      me[14 + mine] = me[14 + mine] + take
      me[9 + mine], c[at + 14] = me[9 + mine] + asks[k + 2], c[at + 14] + asks[k + 2]
    end
    reply[12], reply[13], n = 1, 1, 13
  end
  reply[n + 1], n = count, n + 1
  for i = 1, count do
    local at, mine = rings[i].at, 6 * i
    reply[n + i] = c[at + 9] + c[at + 14] + c[at + 15] + (c[at + 16] > 0 and 1 or 0)
    -- What it is told of the limit: what it knew, and what it was let take.
    me[10 + mine], me[11 + mine] = me[12 + mine] + me[14 + mine], me[13 + mine]
  end
  n = n + count
  reply[n + 1], n = 0, n + 1
  if has_ask then
    local tag = c[8 + asks[1]]
    if c[16] > 0 then
      local known = call('HGET', KEYS[2], asks[1] .. asks[2])
      if known then
        local service, was_there_at = decode(known)
        tag = max(now - was_there_at, 0) <= 1000000 and service or max(tag, service)
      end
    end
    reply[n], reply[n + 1], n = 1, tag, n + 1
  end
  -- No news of limits; who is there; no view.
  reply[n + 1], n = 0, n + 2
  local names_at = n
  for k = 1, #roll, 2 do
    if roll[k + 1] == 1 then reply[n + 1], n = roll[k], n + 1 end
  end
  reply[names_at], reply[n + 1] = n - names_at, 0
  c[17] = min(c[17], me[5] + SILENT_AFTER + 1, now + lease + 1)

  local pack = cmsgpack.pack
  call('HSET', KEYS[1], 'c', pack(unpack(c)), 'm' .. id, pack(unpack(me)), 'a' .. id, pack(unpack(reply)))
  for i = 1, count do
    local ring = rings[i]
    local size, out = ring.size, { 'BITFIELD', KEYS[2 + i] }
    local at, is_done = 2, {}
    for bucket, slot in pairs(ring.dirty) do
      out[at + 1], out[at + 2], out[at + 3], out[at + 4], at =
        'SET', 'i64', '#' .. 1 + size + bucket % (size * 10), ring.b[bucket], at + 4
      if not is_done[slot] then
        is_done[slot] = true
        out[at + 1], out[at + 2], out[at + 3], out[at + 4], at =
          'SET', 'i64', '#' .. 1 + slot % size, ring.s[slot], at + 4
      end
    end
    if at > 2 then call(unpack(out)) end
  end
  reply[n + 2] = 0
  return reply
end

do
  local reply = common_call()
  if reply then return reply end
end

