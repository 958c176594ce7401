-- What all the rest shares -------------------------------------------------------------------------------------------

-- All that functions share is in a few locals, because making a function costs a walk along those, and every call makes all.

-- How the ledger stands. What is known while it learns, and who is missing after it; nil: it does not, and nobody is.
local ledger, learning, missing_ones

-- What comes of the call.
local run = {
  -- Set when a ring is not the one that the state speaks of.
  is_damaged = false,
  -- The rings of the call's limits, in their order.
  rings = {},
  -- The replicas in order, each with whether it is named (1 or 0).
  roll = {}, is_roll_new = false,
  -- The fields of the state that go. The keys of what was here before, if the ledger began anew.
  gone = {}, forgotten = nil,
  -- What is remembered of each flow that was looked at (false: nothing), and when it last waited or was served.
  tags = {}, tags_seen = {}, is_tag_new = {}, tags_gone = {},
  -- What is in use of each limit, as the line sees it, and what the caller was let take.
  totals = {}, taken = {},
  -- Who is told to call, and when: replica, moment.
  wakenings = {},
}

local Ring, State, Replica, Tags, Line, Answer, Run

local K = {
  FORMAT = 2,
  CLOCK_SLACK = 100000, CLOCK_JITTER = 50000,
  SILENT_AFTER = 1000000, CUT_OFF_AFTER = 11000000, LEFT_KEPT = 60000000, LIFE_KEPT = 600000000,
  LEARNING_MIN = 1000000, WINDOW_MAX = 3600000000, TRIAL_LIFE = 10000000, THERE = 1000000, ROUND_EVERY = 600000,
  SHARES = 1000000, WINDOW_COST = 1073741824,
  HEADS_MAX = 16, MISSED_MAX = 16, TAGS_MAX = 1024, SLOT = 10,
  DAY = 86400000000, HALF_DAY = 43200000000,
  OPEN = 0, LEARNING = 1, LOST = 2, STALE = 3,
  BY_NONE = 0, BY_LIMIT = 1, BY_LINE = 2, BY_PAUSE = 3, BY_LEARNING = 4,
  -- How many numbers there are of a limit of the call (name, life, width, amount, since, ends, held), of the ledger but for
  -- its lists, and of a ring.
  LIMIT = 7, HEAD = 26, RING = 19,
  -- Places in a replica's record. What it was told by its last answer begins with TOLD; what it has for sure does not.
  SEQUENCE = 1, BORN = 2, BEAT = 3, SENT = 4, CONTACT = 5, LEFT = 6, OFF = 7, SHARE_LIFE = 8, LEASE = 9,
  TOLD_SHARE = 10, TOLD_AT = 11, SHARE = 12, AT = 13, REPEATED = 14,
  -- Of limit i these are 6 i further. A mark of -1: it was told nothing of the limit; granted of -1: nor by its last answer.
  HELD = 9, TOLD_SEEN = 10, TOLD_MARK = 11, SEEN = 12, MARK = 13, GRANTED = 14, PER_RING = 6,
}

local floor, min, max, format = math.floor, math.min, math.max, string.format
local pack, decode, redis_call = cmsgpack.pack, cmsgpack.unpack, redis.call

local function less(a, b) return max(a - b, 0) end

