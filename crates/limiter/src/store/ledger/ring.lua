-- A ring: the charges of one limit -----------------------------------------------------------------------------------

Ring = {
  key = function(ring)
    if not ring.key then ring.key = format('%sr:%.0f', KEYS[1]:sub(1, -6), ring.name) end
    return ring.key
  end,

  first_live = function(ring, now)
    return max(floor(less(now, ring.life) / ring.width), floor(ring.since / ring.width))
  end,

  -- Reads some buckets and their slots, as far as they are not known yet.
  load = function(ring, buckets)
    if #buckets > 500 then
      local rest = {}
      for i = 501, #buckets do rest[i - 500] = buckets[i] end
      Ring.load(ring, rest)
      buckets = { unpack(buckets, 1, 500) }
    end
    local b, s, from, to, size = ring.b, ring.s, ring.from, ring.to, ring.size
    local ask, into, at, n = { 'BITFIELD_RO', Ring.key(ring), 'GET', 'i64', '#0' }, {}, {}, 0
    for i = 1, #buckets do
      local bucket = buckets[i]
      if not b[bucket] then
        b[bucket] = 0
        if not ring.is_fresh and bucket >= from and bucket <= to then
          n = n + 1
          into[n], at[n], ask[3 * n + 3], ask[3 * n + 4] = b, bucket, 'GET', 'i64'
          ask[3 * n + 5] = '#' .. 1 + size + bucket % (size * K.SLOT)
        end
      end
      local slot = floor(bucket / K.SLOT)
      if not s[slot] then
        s[slot] = 0
        if not ring.is_fresh and slot >= floor(from / K.SLOT) and slot <= floor(to / K.SLOT) then
          n = n + 1
          into[n], at[n], ask[3 * n + 3], ask[3 * n + 4] = s, slot, 'GET', 'i64'
          ask[3 * n + 5] = '#' .. 1 + slot % size
        end
      end
    end
    -- What is written to is looked at before, whatever is to be read of it.
    if n == 0 and (ring.is_fresh or ring.is_checked or #buckets == 0) then return end
    local got = redis_call(unpack(ask))
    if got[1] ~= ledger.epoch then run.is_damaged = true end
    ring.is_checked = true
    for i = 1, n do into[i][at[i]] = got[i + 1] end
  end,

  -- Reads cells in a row.
  read_cells = function(ring, first, count, values)
    local text = redis_call('GETRANGE', Ring.key(ring), 8 * first, 8 * (first + count) - 1)
    if #text ~= 8 * count then
      run.is_damaged = true
      text = text .. string.rep('\0', 8 * count - #text)
    end
    for at = 0, count - 1, 128 do
      local part = min(128, count - at)
      local cells = { struct.unpack('>' .. string.rep('I8', part), text, 8 * at + 1) }
      for i = 1, part do values[#values + 1] = cells[i] end
    end
  end,

  -- Reads all buckets from one to another.
  load_range = function(ring, from, to)
    local b, count, values = ring.b, ring.size * K.SLOT, {}
    local first, last = max(from, ring.from), min(to, ring.to)
    if not ring.is_fresh and first <= last then
      local cell, length = first % count, last - first + 1
      local part = min(length, count - cell)
      Ring.read_cells(ring, 1 + ring.size + cell, part, values)
      if part < length then Ring.read_cells(ring, 1 + ring.size, length - part, values) end
    end
    for bucket = from, to do b[bucket] = b[bucket] or values[bucket - first + 1] or 0 end
  end,

  -- Reads all slots.
  load_slots = function(ring)
    if ring.has_slots then return end
    ring.has_slots = true
    if ring.is_fresh then return end
    local s, values = ring.s, {}
    Ring.read_cells(ring, 1, ring.size, values)
    for slot = floor(ring.from / K.SLOT), floor(ring.to / K.SLOT) do s[slot] = s[slot] or values[1 + slot % ring.size] end
  end,

  -- Makes place for more slots: the ring is written anew.
  grow = function(ring, size)
    if ring.live == 0 then
      ring.low, ring.top = 1, 0
    else
      Ring.load_slots(ring)
      Ring.load_range(ring, ring.low, ring.top)
      for bucket = ring.low, ring.top do
        if ring.b[bucket] > 0 then ring.dirty[#ring.dirty + 1] = bucket end
      end
    end
    ring.size, ring.is_fresh = size, true
  end,

  add = function(ring, bucket, by)
    local slot = floor(bucket / K.SLOT)
    if not (ring.b[bucket] and ring.s[slot]) then Ring.load(ring, { bucket }) end
    if ring.low > ring.top then
      ring.low, ring.top = bucket, bucket
    else
      local low, top = min(ring.low, bucket), max(ring.top, bucket)
      local span = floor(top / K.SLOT) - floor(low / K.SLOT) + 1
      if span > ring.size then Ring.grow(ring, span + 2) end
      ring.low, ring.top = low, top
    end
    ring.b[bucket], ring.s[slot] = ring.b[bucket] + by, ring.s[slot] + by
    ring.live = ring.live + by
    ring.dirty[#ring.dirty + 1] = bucket
  end,

  -- Adopts the terms of a caller. Returns whether replicas count otherwise by them.
  adopt = function(ring, now, at)
    local old_life, old_since = ring.life, ring.since
    local life, width = limits[at + 1], max(limits[at + 2], 1)
    if life >= ring.life or less(now, ring.asked) >= K.LIFE_KEPT then ring.life, ring.asked = life, now end
    ring.width, ring.amount = width, limits[at + 3]
    -- Whoever still lives in yesterday does not say when today ends.
    if limits[at + 4] >= ring.since then ring.since, ring.ends = limits[at + 4], limits[at + 5] end
    local size = floor(ring.life / (width * K.SLOT)) + 3
    if size > ring.size then Ring.grow(ring, size) end
    return ring.life ~= old_life or ring.since ~= old_since
  end,

  advance = function(ring, first)
    if ring.low > ring.top or first <= ring.low then return end
    if first > ring.top then
      ring.live, ring.low, ring.top = 0, 1, 0
      ring.b, ring.s, ring.dirty, ring.is_fresh = {}, {}, {}, true
      return
    end
    local from, to = ring.low, first - 1
    if to - from >= K.SLOT then
      Ring.load_slots(ring)
      Ring.load_range(ring, from, to)
    end
    for bucket = from, to do
      if not ring.b[bucket] then Ring.load(ring, { bucket }) end
      local charged = ring.b[bucket]
      if charged > 0 then Ring.add(ring, bucket, -charged) end
    end
    ring.low = first
  end,

  charge = function(ring, now, stamp, amount)
    local bucket = floor(min(stamp, now) / ring.width)
    if amount > 0 and bucket >= Ring.first_live(ring, now) then Ring.add(ring, bucket, amount) end
  end,

  -- Adds an amount, times a share in millionths, to what is kept.
  keep = function(ring, amount, share)
    -- In two parts: the product has more than 53 bits.
    local whole = floor(amount / K.SHARES)
    local part = ring.part + (amount - whole * K.SHARES) * share
    local carry = floor(part / K.SHARES)
    ring.kept, ring.part = ring.kept + whole * share + carry, part - carry * K.SHARES
  end,

  refund = function(ring, stamp, amount)
    local bucket = floor(stamp / ring.width)
    if not ring.b[bucket] then Ring.load(ring, { bucket }) end
    local given = min(amount, ring.b[bucket])
    if given > 0 then
      Ring.add(ring, bucket, -given)
      ring.refunded = ring.refunded + given
      Ring.keep(ring, given, ring.rate)
    end
  end,

  expiry = function(ring, bucket)
    local moment = (bucket + 1) * ring.width + ring.life
    return ring.ends > 0 and min(moment, ring.ends) or moment
  end,

  -- Returns when so much will have expired; 0: it never will.
  freed_at = function(ring, amount)
    if ring.live < amount then return 0 end
    Ring.load_slots(ring)
    local freed, low, top = 0, ring.low, ring.top
    for slot = floor(low / K.SLOT), floor(top / K.SLOT) do
      local sum = ring.s[slot] or 0
      if freed + sum >= amount then
        local from, to = max(low, slot * K.SLOT), min(top, slot * K.SLOT + K.SLOT - 1)
        Ring.load_range(ring, from, to)
        for bucket = from, to do
          freed = freed + ring.b[bucket]
          if freed >= amount then return Ring.expiry(ring, bucket) end
        end
      end
      freed = freed + sum
    end
    return 0
  end,

  -- Returns what will have expired by a moment.
  freed_by = function(ring, moment)
    if ring.low > ring.top then return 0 end
    if ring.ends > 0 and ring.ends <= moment then return ring.live end
    local last = floor((moment - ring.life) / ring.width) - 1
    if last < ring.low then return 0 end
    if last >= ring.top then return ring.live end
    Ring.load_slots(ring)
    local freed, slot = 0, floor(last / K.SLOT)
    for before = floor(ring.low / K.SLOT), slot - 1 do freed = freed + (ring.s[before] or 0) end
    local from = max(ring.low, slot * K.SLOT)
    Ring.load_range(ring, from, last)
    for bucket = from, last do freed = freed + ring.b[bucket] end
    return freed
  end,

  limit = function(ring)
    return ring.told == 0 and ring.amount or min(ring.amount, ring.told)
  end,
}

