-- Answers 413 after it has read the body. HAProxy's own `deny` answers and closes at once; a client
-- that is still sending then sees a reset connection instead of the answer.

local MAX_READ_BYTES = 256 * 1024 * 1024

local function read_file(path)
    local file = assert(io.open(path, "rb"))
    local content = file:read("a")
    file:close()
    return content
end

local response = read_file(os.getenv("EDGE_FOLDER") .. "/413.http")
local body = response:sub(response:find("\r\n\r\n", 1, true) + 4)

core.register_service("refuse_body", "http", function(applet)
    local num_read = 0
    while num_read < MAX_READ_BYTES do
        local piece = applet:receive(65536)
        if piece == nil or #piece == 0 then
            break
        end
        num_read = num_read + #piece
    end
    applet:set_status(413)
    applet:add_header("content-type", "application/json")
    applet:add_header("cache-control", "no-store")
    applet:add_header("content-length", tostring(#body))
    applet:start_response()
    applet:send(body)
end)
