#include <doctest/doctest.h>

#include <vector>

#include "sandbox/pressure.h"
#include "sandbox/throttle.h"

using namespace hutch::sandbox;
using namespace std::chrono_literals;
using hutch::Clock;
using enum PressureLevel;

namespace {

constexpr uint64_t kOneMiB = 1 << 20;
const PressureBands kBands{.warning = {20, 25, 10},
                           .high = {12, 16, 20},
                           .critical = {6, 9, 40},
                           .emergency = {3, 5, 60},
                           .min_stay = 10s};

PressureFigures free_is(double percent, std::optional<double> psi = {}) {
  return {.total_bytes = 1000 * kOneMiB,
          .available_bytes = static_cast<uint64_t>(percent * 10 * static_cast<double>(kOneMiB)),
          .psi_some = psi};
}

/// Levels at one look a second.
class Course {
 public:
  PressureLevel at(int second, const PressureFigures& figures) {
    return gauge_.next(figures, start_ + std::chrono::seconds(second));
  }
  PressureLevel after_long(const PressureFigures& figures) { return at(last_ += 1000, figures); }

 private:
  const Clock::time_point start_ = Clock::now();
  int last_ = 0;
  PressureGauge gauge_{kBands};
};

PressuredSandbox box(std::string id, uint64_t used, uint64_t asked, bool busy = true,
                     Clock::duration idle = 0s) {
  return {.id = std::move(id),
          .used_bytes = used * kOneMiB,
          .asked_bytes = asked * kOneMiB,
          .asked_cpus = 2,
          .busy = busy,
          .idle_for = idle};
}

uint64_t mib_of(const PressurePlan& plan, const std::string& id) {
  return plan.squeezed.at(id).memory_bytes.value() / kOneMiB;
}

}  // namespace

TEST_SUITE("memory pressure: level") {
  TEST_CASE("each level begins below its edge") {
    const struct {
      double free;
      PressureLevel level;
    } rows[] = {{100, normal}, {20, normal},    {19.9, warning}, {12, warning},    {11.9, high},
                {6, high},     {5.9, critical}, {3, critical},   {2.9, emergency}, {0, emergency}};
    for (const auto& row : rows) {
      CAPTURE(row.free);
      CHECK(Course().at(0, free_is(row.free)) == row.level);
    }
  }

  TEST_CASE("each level is left at its other edge, and not between the two") {
    const struct {
      double entered, between, over;
      PressureLevel level, below;
    } rows[] = {{19, 24.9, 25, warning, normal},
                {11, 15.9, 16, high, warning},
                {5, 8.9, 9, critical, high},
                {2, 4.9, 5, emergency, critical}};
    for (const auto& row : rows) {
      Course course;
      CAPTURE(row.entered);
      CHECK(course.at(0, free_is(row.entered)) == row.level);
      CHECK(course.after_long(free_is(row.between)) == row.level);
      CHECK(course.after_long(free_is(row.over)) == row.below);
    }
  }

  TEST_CASE("it rises by all levels at once, and falls so after its minimum stay") {
    Course course;
    CHECK(course.at(0, free_is(1)) == emergency);
    CHECK(course.at(9, free_is(90)) == emergency);
    CHECK(course.at(10, free_is(90)) == normal);
  }

  TEST_CASE("it may rise further during the minimum stay, which then begins again") {
    Course course;
    CHECK(course.at(0, free_is(19)) == warning);
    CHECK(course.at(1, free_is(5)) == critical);
    CHECK(course.at(10, free_is(90)) == critical);
    CHECK(course.at(11, free_is(90)) == normal);
  }

  TEST_CASE("figures that go up and down at an edge change nothing") {
    Course course;
    CHECK(course.at(0, free_is(11.9)) == high);
    for (int second = 1; second < 100; ++second)
      CHECK(course.at(second, free_is(second % 2 != 0 ? 12.1 : 11.9)) == high);
    Course other;
    CHECK(other.at(0, free_is(11.9)) == high);
    CHECK(other.at(20, free_is(16)) == warning);
    for (int second = 21; second < 100; ++second)
      CHECK(other.at(second, free_is(second % 2 != 0 ? 15.9 : 16.1)) == warning);
  }

  TEST_CASE("waiting for memory lifts the level by one, and only where memory is short") {
    CHECK(Course().at(0, free_is(30, 100)) == normal);
    CHECK(Course().at(0, free_is(24, 100)) == warning);
    CHECK(Course().at(0, free_is(19, 100)) == high);
    CHECK(Course().at(0, free_is(19, 10)) == warning);
    CHECK(Course().at(0, free_is(5, 100)) == emergency);
    CHECK(Course().at(0, free_is(5, 59)) == critical);
    CHECK(Course().at(0, free_is(5)) == critical);
  }

  TEST_CASE("what waiting began is over at half of it") {
    Course course;
    CHECK(course.at(0, free_is(19, 20)) == high);
    CHECK(course.after_long(free_is(19, 10)) == high);
    CHECK(course.after_long(free_is(19, 9.9)) == warning);
  }

  TEST_CASE("a group with less left than the host decides") {
    PressureFigures figures = free_is(50);
    figures.group_limit_bytes = 200 * kOneMiB;
    figures.group_used_bytes = 190 * kOneMiB;
    CHECK(Course().at(0, figures) == critical);
    CHECK(figures.free_bytes() == 10 * kOneMiB);
    CHECK(figures.text() == "10 MB of its group's 200 MB are available (5 %)");
    figures.group_used_bytes = 210 * kOneMiB;  // the kernel charges ahead
    CHECK(Course().at(0, figures) == emergency);
    figures.group_used_bytes = 20 * kOneMiB;
    CHECK(Course().at(0, figures) == normal);
    CHECK(figures.text() == "500 MB of 1000 MB are available (50 %)");
  }

  TEST_CASE("a host that tells nothing is under no pressure") {
    CHECK(Course().at(0, {}) == normal);
  }
}

TEST_SUITE("memory pressure: what is done with whom") {
  const ThrottleSettings kV2{.floor_bytes = 32 * kOneMiB, .by_high = true};
  const ThrottleSettings kV1{.floor_bytes = 32 * kOneMiB, .by_high = false};

  TEST_CASE("below high nobody is touched") {
    for (const auto level : {normal, warning})
      CHECK(plan_pressure(level, kOneMiB, {box("a", 900, 1000)}, kV2).squeezed.empty());
  }

  TEST_CASE("who uses more than its share is held below what it uses, the others may grow") {
    const auto plan =
        plan_pressure(high, 100 * kOneMiB, {box("hog", 900, 1000), box("small", 50, 1000)}, kV2);
    CHECK(mib_of(plan, "hog") == 723);  // half of 1000 by use (947), half by what was asked (500)
    CHECK(mib_of(plan, "small") == 276);
    CHECK_FALSE(plan.squeezed.at("hog").cpus);
    CHECK_FALSE(plan.worst);
  }

  TEST_CASE("the higher the level, the less for all together") {
    const std::vector boxes{box("a", 400, 1000), box("b", 400, 1000)};
    const auto total = [&](PressureLevel level) {
      const auto plan = plan_pressure(level, 200 * kOneMiB, boxes, kV2);
      return mib_of(plan, "a") + mib_of(plan, "b");
    };
    CHECK(total(high) == 900);
    CHECK(total(critical) == 800);
    CHECK(total(emergency) == 720);
  }

  TEST_CASE("never below the floor and never above what was asked for") {
    const auto plan =
        plan_pressure(critical, 0, {box("hog", 2000, 4000), box("idle", 1, 64), box("tiny", 1, 16)}, kV2);
    CHECK(mib_of(plan, "idle") == 32);
    CHECK(mib_of(plan, "tiny") == 16);
    CHECK(mib_of(plan_pressure(high, 4000 * kOneMiB, {box("a", 10, 100)}, kV2), "a") == 100);
  }

  TEST_CASE("hard limits leave a tenth to grow, with a quarter of the processors") {
    const auto plan =
        plan_pressure(high, 100 * kOneMiB, {box("a", 500, 1000), box("b", 10, 1000), box("c", 95, 100)}, kV1);
    CHECK(mib_of(plan, "a") == 550);
    CHECK(plan.squeezed.at("a").cpus == 0.5);
    CHECK(mib_of(plan, "b") == 32);
    CHECK(mib_of(plan, "c") == 100);
  }

  TEST_CASE("from critical on the idle are frozen, and nobody who works") {
    const std::vector boxes{box("works", 10, 100), box("idle", 10, 100, false, 5s),
                            box("just", 10, 100, false, 1s)};
    for (const auto& settings : {kV1, kV2}) {
      CHECK_FALSE(plan_pressure(high, kOneMiB, boxes, settings).squeezed.at("idle").frozen);
      const auto plan = plan_pressure(critical, kOneMiB, boxes, settings);
      CHECK(plan.squeezed.at("idle").frozen);
      CHECK_FALSE(plan.squeezed.at("works").frozen);
      CHECK_FALSE(plan.squeezed.at("just").frozen);
    }
  }

  TEST_CASE("at emergency the one idle longest ends, then who is furthest over its share") {
    const auto worst = [&](PressureLevel level, const std::vector<PressuredSandbox>& boxes) {
      return plan_pressure(level, 0, boxes, kV2).worst.value_or("");
    };
    const auto hog = box("hog", 900, 1000), fair = box("fair", 500, 2000);
    const auto idle = box("idle", 40, 1000, false, 60s), older = box("older", 40, 1000, false, 61s);
    CHECK(worst(critical, {hog, idle}).empty());
    CHECK(worst(emergency, {hog, fair, idle, older}) == "older");
    CHECK(worst(emergency, {hog, fair}) == "hog");
    // Its end would give nothing back.
    CHECK(worst(emergency, {fair, box("empty", 5, 1000, false, 90s)}) == "fair");
    CHECK(worst(emergency, {box("empty", 5, 1000, false, 90s)}).empty());
  }
}
